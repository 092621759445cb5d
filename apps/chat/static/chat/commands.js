// What the user asks of the server over the socket, and what became of it: asking, stopping, trying again.

import { announce, toast } from "./dom.js";
import { Outbox } from "./outbox.js";
import { format, gettext } from "./words.js";

const SETTLED = new Set(["run_finished", "already_decided"]); // somebody was faster; the events tell what became of it

export class Commands {
  /** `owner` has transmit(frame), changed(), turnsOf(threadId), and took(frame, result) for each admitted run. */
  constructor({ memory, owner }) {
    this.owner = owner;
    this.refused = []; // {frame, words}: messages that the server did not take
    this.before = new Map(); // command id -> how many turns its thread had when it was sent
    this.outbox = new Outbox({
      memory,
      send: (frame) => owner.transmit(frame),
      answered: (frame, reply) => this.answered(frame, reply),
    });
  }

  ask(threadId, text, agent, files) {
    const asked = { type: "run.start", thread_id: threadId, text, if_busy: "enqueue" };
    this.put({ ...asked, ...(agent ? { agent } : {}), ...(files.length ? { attachments: files } : {}) });
  }

  /** Answer again what a turn answered. */
  retry(threadId, turn) {
    const agent = turn.agent ? { agent: turn.agent } : {};
    this.put({ type: "run.start", thread_id: threadId, retry_of: turn.runId, if_busy: "enqueue", ...agent });
  }

  /** Ask in other words what a turn answered. What is being answered in this thread is stopped for it. */
  edit(threadId, turn, text, agent) {
    const asked = { type: "run.start", thread_id: threadId, text, parent_message_id: turn.prompt.id, if_busy: "interrupt" };
    const files = turn.prompt.files.map(({ id }) => id);
    this.put({ ...asked, ...(agent ? { agent } : {}), ...(files.length ? { attachments: files } : {}) });
  }

  /** Answer what a run waits for; the first answer of all tabs counts. */
  decide(interrupt, approve) {
    this.put({ type: "tool.decide", interrupt_id: interrupt.id, approve });
  }

  cancel(turn) {
    if (this.isCancelling(turn.runId)) return;
    announce(gettext("Stopping the answer."));
    this.put({ type: "run.cancel", run_id: turn.runId });
  }

  isCancelling(runId) {
    return this.outbox.isCancelling(runId);
  }

  /** Send a refused message once more; the server may take it now. */
  resend(frame) {
    const { id: _old, ...command } = frame;
    this.put(command);
    this.discard(frame);
  }

  discard(frame) {
    this.refused = this.refused.filter((entry) => entry.frame !== frame);
    this.owner.changed();
  }

  put(command) {
    const before = this.owner.turnsOf(command.thread_id).length;
    this.before.set(this.outbox.put(command), before);
    this.owner.changed();
  }

  /** The tab is subscribed (again): what has no answer goes out once more. */
  resume() {
    this.outbox.resend();
    this.owner.changed();
  }

  replied(reply) {
    this.outbox.replied(reply);
  }

  answered(frame, reply) {
    this.before.delete(frame.id);
    if (frame.type === "run.start") {
      if (reply.ok) this.owner.took(frame, reply.result);
      else this.refused.push({ frame, words: reply.error.message });
    } else if (!reply.ok && !SETTLED.has(reply.error.code)) {
      toast(format(gettext("That could not be done. %(why)s"), { why: reply.error.message }));
    }
    this.owner.changed();
  }

  /** What a thread shows below its turns: messages without an answer, and refused ones. */
  below(threadId) {
    const turns = this.owner.turnsOf(threadId);
    // The event that shows a message to all tabs comes before this tab's reply: it must not stand there twice.
    // A question that is answered again has its text from the first time, so its frame has none.
    const isShown = (frame) => turns.slice(this.before.get(frame.id) ?? 0)
      .some(({ prompt }) => frame.text === undefined || prompt?.text === frame.text);
    return {
      unanswered: this.outbox.messages(threadId).filter((frame) => !isShown(frame)),
      refused: this.refused.filter(({ frame }) => frame.thread_id === threadId),
    };
  }

  get isWaiting() {
    return this.outbox.waiting.size > 0;
  }
}
