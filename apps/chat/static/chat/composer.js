// Where the user writes: Enter sends, drafts survive a reload, the chosen agent is remembered.

import { h, setText } from "./dom.js";
import { Files } from "./files.js";
import { format, gettext } from "./words.js";

const encoder = new TextEncoder();

export class Composer {
  /** `owner` has submit(text, agent, files) and stop(). */
  constructor({ memory, api, owner }) {
    this.memory = memory;
    this.owner = owner;
    this.form = document.getElementById("composer");
    this.field = document.getElementById("prompt");
    this.problem = document.getElementById("prompt-problem");
    this.send = document.getElementById("send");
    this.stop = document.getElementById("stop");
    this.picker = document.getElementById("agent");
    this.place = "new"; // whose draft this is: a thread's id, or "new"
    this.suggested = null; // the agent that answered here last
    this.waits = false; // whether the message goes out as soon as its files have come
    this.files = new Files({ api, memory, changed: (failed) => this.filesChanged(failed) });
    this.limit = null; // bytes of a message as JSON; unknown until the server says hello
    this.field.addEventListener("input", () => this.changed());
    this.field.addEventListener("keydown", (event) => this.pressed(event));
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    this.stop.addEventListener("click", () => {
      owner.stop();
      this.field.focus();
    });
    this.picker.addEventListener("change", () => this.choose(this.picker.value));
  }

  get agent() {
    return this.picker.value || null;
  }

  /** Write in another conversation: its own draft comes back. */
  moveTo(place) {
    this.place = place;
    this.field.value = this.memory.get(`draft:${place}`, "");
    this.files.moveTo(place);
    this.changed();
  }

  /** The draft went out as a message. */
  sent() {
    this.field.value = "";
    this.files.sent();
    this.changed();
  }

  offer(agents) {
    this.picker.replaceChildren(...agents.map(({ name, title }) => h("option", { value: name }, title ?? name)));
    this.picker.hidden = agents.length < 2;
    this.suggest(this.suggested);
  }

  /** The user wants this agent, here and in new conversations. */
  choose(name) {
    if (!this.pick(name)) return;
    this.memory.set("agent", name);
    this.memory.set(`agent:${this.place}`, name);
  }

  /** Who answers where the user has not chosen: `name`, who answered here before, else the last one chosen anywhere. */
  suggest(name) {
    this.suggested = name; // the agents may not be known yet
    const names = [this.memory.get(`agent:${this.place}`), name, this.memory.get("agent"), this.picker.options[0]?.value];
    names.find((candidate) => this.pick(candidate));
  }

  pick(name) {
    const isKnown = [...this.picker.options].some((option) => option.value === name);
    if (isKnown) this.picker.value = name;
    return isKnown;
  }

  /** `answering`: there is something to stop. */
  show({ answering, blocked }) {
    this.stop.hidden = !answering;
    this.blocked = blocked;
    this.field.disabled = blocked;
    this.judge();
  }

  pressed(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.submit();
  }

  submit() {
    const text = this.field.value.trim();
    this.waits = this.files.isComing;
    if (!text || this.waits || this.send.disabled) return;
    this.owner.submit(text.toWellFormed?.() ?? text, this.agent, this.files.ids);
  }

  filesChanged(failed) {
    const goes = this.waits && !failed;
    if (!this.files.isComing || failed) this.waits = false;
    this.judge();
    if (goes && !this.files.isComing) this.submit();
  }

  changed() {
    this.waits = false; // it is still being written
    this.memory.set(`draft:${this.place}`, this.field.value);
    this.fit();
    this.judge();
  }

  /** Browsers that know field-sizing need no help. */
  fit() {
    if (CSS.supports("field-sizing", "content")) return;
    this.field.style.height = "auto";
    this.field.style.height = `${this.field.scrollHeight}px`;
  }

  judge() {
    const text = this.field.value;
    const bytes = this.limit !== null && text.length * 2 > this.limit / 3 ? encoder.encode(JSON.stringify(text)).length : 0;
    const tooLong = this.limit !== null && bytes > this.limit;
    this.send.disabled = Boolean(this.blocked) || tooLong || !text.trim() || this.files.isComing;
    this.field.setAttribute("aria-invalid", String(tooLong));
    setText(this.problem, tooLong ? format(gettext("The message has %(size)s KiB; at most %(limit)s KiB can be sent. Shorten it."), { size: kib(bytes), limit: kib(this.limit) }) : "");
  }
}

const kib = (bytes) => Math.ceil(bytes / 1024);
