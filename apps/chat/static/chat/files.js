// The files that go with the next message: kept on the server as soon as they are chosen, named below the field, sent by id.

import { h, icon, toast } from "./dom.js";
import { format, gettext, number } from "./words.js";

/** A file as it is named: a download, since nothing that was sent in is ever shown in place. */
export function fileLink(api, { id, name, bytes }) {
  return h("a", { class: "file", href: api.file(id), download: name }, icon("clip"), h("bdi", {}, name), h("span", {}, sizeOf(bytes)));
}

export class Files {
  /** `changed(failed)` is told when a file came or went, or failed to come. */
  constructor({ api, memory, changed }) {
    this.api = api;
    this.memory = memory;
    this.changed = changed;
    this.limit = 0;
    this.coming = 0; // files that are on their way to the server
    this.kept = [];
    this.list = document.getElementById("files");
    this.input = document.getElementById("file");
    this.button = document.getElementById("attach");
    this.button.addEventListener("click", () => this.input.click());
    this.input.addEventListener("change", () => this.take(this.input.files));
    const form = document.getElementById("composer");
    form.addEventListener("dragover", (event) => { if (event.dataTransfer.types.includes("Files")) event.preventDefault(); });
    form.addEventListener("drop", (event) => this.dropped(event, event.dataTransfer.files));
    form.addEventListener("paste", (event) => this.dropped(event, event.clipboardData.files));
  }

  get ids() {
    return this.kept.map(({ id }) => id);
  }

  get isComing() {
    return this.coming > 0;
  }

  /** Write in another conversation: its own files come back. */
  moveTo(place) {
    this.place = place;
    this.kept = this.memory.get(`files:${place}`, []);
    this.show();
  }

  sent() {
    this.kept = [];
    this.keep();
  }

  dropped(event, files) {
    if (!files.length) return;
    event.preventDefault();
    this.take(files);
  }

  async take(files) {
    const { place } = this;
    const chosen = [...files].slice(0, Math.max(this.limit - this.kept.length - this.coming, 0));
    if (chosen.length < files.length) toast(format(gettext("At most %(count)s files go with a message."), { count: number(this.limit) }));
    this.input.value = ""; // so that the same file can be chosen again
    this.coming += chosen.length; // all of them, or a message that waits for them would go with the first
    this.show();
    for (const file of chosen) await this.upload(file, place);
  }

  async upload(file, place) {
    let failed = false;
    try {
      const kept = await this.api.keepFile(file);
      if (place === this.place) this.kept.push(kept);
      else this.memory.set(`files:${place}`, [...this.memory.get(`files:${place}`, []), kept]);
    } catch (problem) {
      failed = true;
      toast(format(gettext("“%(name)s” could not be attached. %(why)s"), { name: file.name, why: problem.message }));
    } finally {
      this.coming -= 1;
      this.keep(failed);
    }
  }

  remove(id) {
    this.kept = this.kept.filter((file) => file.id !== id);
    this.keep();
    this.button.focus();
  }

  keep(failed = false) {
    this.memory.set(`files:${this.place}`, this.kept.length ? this.kept : null);
    this.show();
    this.changed(failed);
  }

  show() {
    const coming = this.isComing ? [h("li", { class: "file" }, gettext("Being attached…"))] : [];
    this.list.replaceChildren(...this.kept.map((file) => h("li", {}, fileLink(this.api, file), h("button", {
      class: "button button-icon button-quiet", type: "button", onclick: () => this.remove(file.id),
      "aria-label": format(gettext("Take “%(name)s” away"), { name: file.name }),
    }, icon("close")))), ...coming);
    this.list.hidden = !this.kept.length && !coming.length;
  }
}

function sizeOf(bytes) {
  return bytes < 1024 ? format(gettext("%(size)s bytes"), { size: number(bytes) }) : format(gettext("%(size)s KiB"), { size: number(Math.ceil(bytes / 1024)) });
}
