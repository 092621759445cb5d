// Commands that have no reply yet. They are sent again after every reconnect and every reload: a command's id makes the
// server act on it once, however often it comes.

const KEY = "outbox";

/** 32 characters; the browser's own UUIDs are to be had on HTTPS only. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class Outbox {
  /** `send` puts a frame on the line if there is one; `answered(frame, reply)` is told each reply, once. */
  constructor({ memory, send, answered }) {
    this.memory = memory;
    this.transmit = send;
    this.answered = answered;
    this.waiting = new Map(memory.get(KEY, []).map((frame) => [frame.id, frame]));
  }

  /** Send a command, now and until it is answered. Returns its id. */
  put(command) {
    const frame = { ...command, id: newId() };
    this.waiting.set(frame.id, frame);
    this.save();
    this.transmit(frame);
    return frame.id;
  }

  /** The tab is subscribed (again). */
  resend() {
    for (const frame of this.waiting.values()) this.transmit(frame);
  }

  replied(reply) {
    const frame = this.waiting.get(reply.id);
    if (frame === undefined) return; // a reply to what was sent twice
    this.waiting.delete(reply.id);
    this.save();
    this.answered(frame, reply);
  }

  /** Messages of a thread that the server has not answered yet, oldest first. */
  messages(threadId) {
    return [...this.waiting.values()].filter((frame) => frame.type === "run.start" && frame.thread_id === threadId);
  }

  /** Is a run being cancelled from here? */
  isCancelling(runId) {
    return [...this.waiting.values()].some((frame) => frame.type === "run.cancel" && frame.run_id === runId);
  }

  save() {
    this.memory.set(KEY, this.waiting.size ? [...this.waiting.values()] : null);
  }
}
