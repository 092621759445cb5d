// The socket of this tab, as the protocol `turnout.v1` asks: one cursor into the user's stream.
//
// It keeps no state of the chat. It knows when to come back and when not to, answers pings, and acknowledges what was
// applied. An ack is decided when events arrive, never by a timer: timers of hidden tabs sleep.

import { gettext } from "./words.js";

const ACK_EVENTS = 128;
const ACK_BYTES = 64 * 1024;
const ACK_AFTER_MS = 2_000;
const PROOFS_PER_ACK = 16;
const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 30_000;
const BACK_OFF_MS = 5_000; // at least this long after the server said that it has too much to do
const SILENCE_BEATS = 2.5; // heartbeats without a frame after which the line is taken for dead

const Next = { RETRY: "retry", BACK_OFF: "back off", STOP: "stop" };

/** What each close code means to this page; what is not here (1006 and the like) is a line that broke. */
const CLOSE = {
  4001: { next: Next.RETRY, words: gettext("The server is going away") },
  4012: { next: Next.RETRY, words: gettext("The server is restarting") },
  4013: { next: Next.BACK_OFF, words: gettext("The server is busy") },
  4429: { next: Next.BACK_OFF, words: gettext("Too many requests") },
  4408: { next: Next.RETRY, words: gettext("The connection stalled") },
  4400: { next: Next.STOP, name: "broken", words: gettext("This page and the server do not understand each other. Reload the page.") },
  4413: { next: Next.STOP, name: "broken", words: gettext("That was too large for the server. Reload the page.") },
  4401: { next: Next.STOP, name: "signed-out", words: gettext("You are logged out") },
  4403: { next: Next.STOP, name: "forbidden", words: gettext("This account may not use the chat") },
  4409: { next: Next.STOP, name: "replaced", words: gettext("Disconnected: the chat is open in too many tabs") },
};

/** Events did not continue what this tab has. The connection closes and comes back with its last position. */
export class Gap extends Error {}

export class Connection {
  /**
   * `owner` is asked and told: hello(frame), events(entries, position) -> {ended, texts: [{messageId, text}]} (throws Gap),
   * reset(frame), reply(frame), state({name, words, retryAt?}).
   */
  constructor(address, owner) {
    this.address = address;
    this.owner = owner;
    this.socket = null;
    this.attempt = 0;
    this.timer = null;
    this.silence = null;
    this.watch = null;
    this.stopped = false;
    this.wakeUp = () => this.comeBackNow();
    addEventListener("online", this.wakeUp);
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") this.comeBackNow();
    });
  }

  open() {
    this.stopped = false;
    clearTimeout(this.timer);
    this.tell("connecting", this.attempt ? gettext("Reconnecting…") : gettext("Connecting…"));
    const socket = new WebSocket(this.address, ["turnout.v1"]);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.subscribed = false;
    this.goodbye = null;
    this.applied = 0; // the highest seq that the page holds
    this.proofs = [];
    this.unpacking = null; // the tail of the frames that wait for one which is being decompressed
    this.acknowledge();
    socket.onmessage = ({ data }) => socket === this.socket && this.arrived(socket, data);
    socket.onclose = ({ code }) => socket === this.socket && this.closed(code);
    this.heartbeatS = 15;
    this.hear();
  }

  /** Stop for good: no coming back until open() is called. */
  close() {
    this.stopped = true;
    clearTimeout(this.timer);
    clearTimeout(this.silence);
    const socket = this.socket;
    this.socket = null;
    socket?.close(1000);
  }

  get isOpen() {
    return this.subscribed && this.socket?.readyState === WebSocket.OPEN;
  }

  /** Say where this tab stands. The stream follows. */
  subscribe(after, seq) {
    this.applied = seq;
    this.acked = seq;
    this.subscribed = true;
    this.send({ type: "subscribe", after, ...("DecompressionStream" in globalThis ? { compress: "deflate-raw" } : {}) });
    this.attempt = 0;
    this.tell("open", gettext("Connected"));
  }

  /** True if it went onto the line; the outbox sends again what gets no reply. */
  send(frame) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(frame));
    return true;
  }

  comeBackNow() {
    if (this.stopped) return;
    if (this.timer !== null && this.mayHurry) this.open();
    else if (this.socket?.readyState === WebSocket.OPEN) this.send({ type: "ping", t: Math.round(performance.now()) });
  }

  // ---- what arrives

  arrived(socket, data) {
    this.hear();
    if (typeof data === "string" && this.unpacking === null) {
      this.take(JSON.parse(data), data.length);
      return;
    }
    // A compressed frame is unpacked beside the main thread; those behind it must not overtake it.
    const before = this.unpacking ?? Promise.resolve();
    const mine = before.then(async () => {
      const text = typeof data === "string" ? data : await inflate(data);
      if (socket === this.socket) this.take(JSON.parse(text), text.length);
    }).finally(() => { if (this.unpacking === mine) this.unpacking = null; });
    this.unpacking = mine;
  }

  take(frame, bytes) {
    switch (frame.type) {
      case "hello":
        this.heartbeatS = frame.heartbeat_s;
        this.hear();
        this.owner.hello(frame);
        break;
      case "events":
        this.takeEvents(frame, bytes);
        break;
      case "reply":
        this.owner.reply(frame);
        break;
      case "reset":
        this.subscribed = false;
        this.owner.reset(frame);
        break;
      case "ping":
        this.acknowledge();
        this.send({ type: "pong", t: frame.t, acked: this.applied });
        this.acked = this.applied;
        break;
      case "bye":
        this.goodbye = frame;
        break;
    }
  }

  takeEvents(frame, bytes) {
    let outcome;
    try {
      outcome = this.owner.events(frame.events, frame.position);
    } catch (problem) {
      if (!(problem instanceof Gap)) throw problem;
      this.lineBroke(gettext("An event was missing"));
      return;
    }
    this.applied = Math.max(this.applied, frame.events.at(-1)?.seq ?? 0);
    this.sinceAck.events += frame.events.length;
    this.sinceAck.bytes += bytes;
    for (const text of outcome.texts) this.prove(text);
    const { events, at } = this.sinceAck;
    if (outcome.ended || events >= ACK_EVENTS || this.sinceAck.bytes >= ACK_BYTES || performance.now() - at >= ACK_AFTER_MS) {
      this.ack();
    }
  }

  // ---- acks

  ack() {
    const proofs = this.proofs.splice(0, PROOFS_PER_ACK);
    this.send({ type: "ack", seq: this.applied, ...(proofs.length ? { proofs } : {}) });
    this.acked = this.applied;
    this.acknowledge();
  }

  acknowledge() {
    this.sinceAck = { events: 0, bytes: 0, at: performance.now() };
  }

  /** The hash of a finished message's text goes with the next ack. Browsers hash only on HTTPS and on localhost. */
  async prove({ messageId, text }) {
    if (!globalThis.crypto?.subtle) return;
    const socket = this.socket;
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
    if (socket !== this.socket || this.proofs.length >= 4 * PROOFS_PER_ACK) return;
    const sha256 = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    this.proofs.push({ message_id: messageId, sha256 });
    if (this.acked === this.applied) this.ack(); // its run's ack went out while the hash was made
  }

  // ---- coming back

  /** A frame came: the line lives. Silence for some heartbeats means that it does not, whatever the browser believes. */
  hear() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.lineBroke(gettext("No answer from the server")), SILENCE_BEATS * this.heartbeatS * 1000);
  }

  lineBroke(words) {
    const socket = this.socket;
    this.socket = null;
    socket?.close(3000, words);
    this.wait(words, this.backoff(), true);
  }

  closed(code) {
    this.socket = null;
    this.subscribed = false;
    clearTimeout(this.silence);
    const told = CLOSE[code] ?? { next: Next.RETRY, words: this.attempt ? gettext("The server cannot be reached") : gettext("The connection was lost") };
    if (told.next === Next.STOP) {
      this.stopped = true;
      this.tell(told.name, told.words);
      return;
    }
    const busy = told.next === Next.BACK_OFF;
    const asked = Math.min(this.goodbye?.retry_after_ms ?? 0, 120_000);
    const own = busy ? BACK_OFF_MS + this.backoff() : this.backoff();
    this.wait(told.words, asked ? asked + (busy ? own : 0) : own, !busy);
  }

  /** Spread over time, so that all tabs of a server that came back do not knock at once. */
  backoff() {
    const ceiling = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.attempt);
    return ceiling / 2 + Math.random() * (ceiling / 2);
  }

  wait(words, milliseconds, mayHurry) {
    clearTimeout(this.silence);
    this.subscribed = false;
    this.attempt += 1;
    this.mayHurry = mayHurry;
    const offline = navigator.onLine === false;
    this.tell("waiting", offline ? gettext("You are offline") : words, Date.now() + milliseconds);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => { this.timer = null; this.open(); }, milliseconds);
  }

  tell(name, words, retryAt = null) {
    if (name !== "waiting") this.timer = null;
    this.owner.state({ name, words, retryAt, attempt: this.attempt });
  }
}

async function inflate(buffer) {
  const stream = new Blob([buffer]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Response(stream).text();
}
