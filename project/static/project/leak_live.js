// Two seats, each with a socket of its own that speaks turnout.v1. Runs follow each other until a bound; what arrives in a
// seat and belongs to another thread has reached a wrong recipient, and is counted by the path that its run was started on.

const RUNS = 40; // of each seat, then the show stands still
const SHOWN = 200; // lines of a stream
const runs = new Map(); // run id -> the path that was asked for when it was started
const counts = { wrong: { legacy: 0, factory: 0 }, right: { legacy: 0, factory: 0 } };
const button = document.querySelector("#switch");

class Seat {
  constructor(element) {
    this.element = element;
    this.thread = element.dataset.thread;
    this.name = element.dataset.name;
    this.stream = element.querySelector(".stream");
    this.number = 0;
    this.connections = 0;
    this.connect();
  }

  show(selector, text) {
    this.element.querySelector(selector).textContent = text;
  }

  connect() {
    const address = new URL(`/ws/leak-live/${this.element.dataset.seat}/`, location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    this.socket = new WebSocket(address, "turnout.v1");
    this.socket.onmessage = (message) => this.take(JSON.parse(message.data));
    this.socket.onclose = () => this.show(".state", "closed");
  }

  send(frame) {
    this.socket.send(JSON.stringify(frame));
  }

  take(frame) {
    switch (frame.type) {
      case "hello":
        this.connections += 1;
        this.show(".connections", this.connections);
        this.show(".state", "open");
        this.send({ type: "subscribe" });
        this.ask();
        break;
      case "events":
        frame.events.forEach((entry) => this.apply(entry));
        this.send({ type: "ack", seq: frame.events.at(-1).seq });
        break;
      case "reply":
        if (frame.ok) this.started = frame.result.run_id;
        else this.show(".state", frame.error.message);
        break;
      case "ping":
        this.send({ type: "pong", t: frame.t, acked: 0 });
        break;
      case "bye":
        this.show(".state", frame.reason);
    }
  }

  ask() {
    if (this.number >= RUNS) return;
    this.number += 1;
    this.show(".runs", this.number);
    this.send({
      type: "run.start",
      id: `${this.element.dataset.seat}-${crypto.randomUUID().slice(0, 8)}`,
      thread_id: this.thread,
      agent: "metronome",
      text: `count=12 interval_ms=100 tag=${this.name}`,
    });
  }

  apply(entry) {
    const mine = entry.thread_id === this.thread;
    const { type, delta, name, value } = entry.event;
    // A run's path is pinned when it is claimed, so a run counts for the path that both were on when it was started.
    if (mine && type === "CUSTOM" && name === "turnout.run.queued" && value.message) {
      runs.set(entry.run_id, button.dataset.path);
    }
    if (type.startsWith("TEXT_MESSAGE")) {
      const path = runs.get(entry.run_id) ?? button.dataset.path;
      counts[mine ? "right" : "wrong"][path] += 1;
      report();
    }
    if (type === "TEXT_MESSAGE_CONTENT") this.write(delta, mine);
    if (mine && (type === "RUN_FINISHED" || type === "RUN_ERROR")) this.ask();
  }

  write(text, mine) {
    const line = document.createElement("li");
    line.textContent = mine ? text : `not for ${this.name}: ${text}`;
    line.classList.toggle("wrong", !mine);
    this.stream.append(line);
    if (this.stream.childElementCount > SHOWN) this.stream.firstElementChild.remove();
    this.stream.scrollTop = this.stream.scrollHeight;
  }
}

function report() {
  document.querySelector("#wrong-legacy").textContent = counts.wrong.legacy;
  document.querySelector("#wrong-factory").textContent = counts.wrong.factory;
  document.querySelector("#right-factory").textContent = counts.right.factory;
}

function label() {
  button.textContent = button.dataset.path === "legacy" ? "Serve both by the factory" : "Back to the singleton";
}

button.addEventListener("click", async () => {
  const to = button.dataset.path === "legacy" ? "factory" : "legacy";
  const csrf = document.querySelector("[name=csrfmiddlewaretoken]").value;
  button.disabled = true;
  const answer = await fetch(button.dataset.address, {
    method: "POST",
    headers: { "X-CSRFToken": csrf },
    body: new URLSearchParams({ to }),
  });
  button.disabled = false;
  if (answer.ok) {
    button.dataset.path = to;
    label();
  }
  const told = answer.ok ? `From their next runs on, the ${to === "factory" ? "factory" : "singleton"} serves both.` : "It was refused.";
  document.querySelector("#told").textContent = told;
});

label();
for (const element of document.querySelectorAll(".seat")) new Seat(element);
