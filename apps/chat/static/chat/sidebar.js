// The list of conversations, with search. Days head the list; a conversation that is being answered shows it.

import { h, icon } from "./dom.js";
import { format, gettext } from "./words.js";

const SEARCH_AFTER_MS = 200;
const DAY_MS = 86_400_000;

export class Sidebar {
  /** `owner` has open(id), menu(id, button), search(query), more(). */
  constructor({ owner, address }) {
    this.owner = owner;
    this.address = address;
    this.list = document.getElementById("threads");
    this.field = document.getElementById("search");
    this.timer = null;
    this.shown = "";
    this.field.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => owner.search(this.query), SEARCH_AFTER_MS);
    });
    this.field.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.field.value) return;
      event.stopPropagation();
      this.field.value = "";
      owner.search("");
    });
    this.setUpDrawer();
  }

  get query() {
    return this.field.value.trim();
  }

  /** `threads` newest first; `state` is "ready", "loading" or words that say what went wrong. */
  show({ threads, currentId, isBusy, state, hasMore }) {
    const rows = threads.map((thread) => [thread.id, thread.title, thread.created_at, thread.id === currentId, isBusy(thread.id)]);
    const signature = JSON.stringify([rows, state, hasMore, this.query]);
    if (signature === this.shown) return;
    this.shown = signature;
    const focused = this.list.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
    this.list.replaceChildren(...this.groups(rows), ...this.foot(rows, state, hasMore));
    if (focused) this.list.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
  }

  groups(rows) {
    const groups = new Map();
    for (const row of rows) {
      const day = dayOf(row[2]);
      if (!groups.has(day)) groups.set(day, []);
      groups.get(day).push(this.row(row));
    }
    return [...groups].flatMap(([day, items], index) => [
      h("h2", { class: "day", id: `day-${index}` }, day),
      h("ul", { "aria-labelledby": `day-${index}` }, ...items),
    ]);
  }

  row([id, title, , isCurrent, isBusy]) {
    const name = title || gettext("Untitled");
    const link = h("a", {
      href: this.address(id), class: "thread", dir: "auto", title: name, "data-focus": `open ${id}`, "aria-current": isCurrent ? "page" : null,
      onclick: (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
        event.preventDefault();
        this.close();
        this.owner.open(id);
      },
    }, name);
    const more = h("button", {
      class: "button button-icon thread-more", type: "button", "aria-haspopup": "menu", "aria-label": format(gettext("Actions for “%(name)s”"), { name }),
      "data-focus": `more ${id}`, onclick: () => this.owner.menu(id, more),
    }, icon("more"));
    const mark = isBusy ? h("span", { class: "busy", role: "img", "aria-label": gettext("Is being answered") }) : null;
    return h("li", { class: "thread-row", "data-thread": id }, link, mark, more);
  }

  foot(rows, state, hasMore) {
    if (state === "loading" && !rows.length) return [h("p", { class: "threads-note" }, gettext("Loading…"))];
    if (state !== "ready" && state !== "loading") {
      return [h("p", { class: "threads-note", role: "alert" }, state),
        h("button", { class: "button button-small", type: "button", onclick: () => this.owner.search(this.query) }, gettext("Try again"))];
    }
    if (!rows.length) return [h("p", { class: "threads-note" }, this.query ? gettext("Nothing found. Try another word.") : gettext("Your conversations will be listed here."))];
    if (hasMore) return [h("button", { class: "button button-small button-quiet", type: "button", onclick: () => this.owner.more() }, gettext("Show older"))];
    return [];
  }

  goToSearch() {
    if (this.narrow.matches) this.open();
    this.field.focus();
    this.field.select();
  }

  clear() {
    this.list.replaceChildren();
    this.field.value = "";
    this.shown = "";
  }

  // On a narrow screen the list is a drawer over the page.

  setUpDrawer() {
    this.panel = document.getElementById("sidebar");
    this.shade = document.getElementById("shade");
    this.opener = document.getElementById("open-sidebar");
    this.narrow = matchMedia("(max-width: 56rem)");
    this.opener.addEventListener("click", () => this.open());
    document.getElementById("close-sidebar").addEventListener("click", () => this.close());
    this.shade.addEventListener("click", () => this.close());
    this.panel.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.isDrawerOpen) {
        event.stopPropagation();
        this.close();
      }
    });
    this.narrow.addEventListener("change", () => this.settle(false));
    this.settle(false);
  }

  get isDrawerOpen() {
    return this.narrow.matches && this.panel.hasAttribute("data-open");
  }

  open() {
    this.settle(true);
    this.panel.querySelector("#close-sidebar").focus();
  }

  close() {
    if (!this.isDrawerOpen) return;
    this.settle(false);
    this.opener.focus();
  }

  settle(isOpen) {
    const isDrawer = this.narrow.matches;
    this.panel.toggleAttribute("data-open", isDrawer && isOpen);
    this.panel.inert = isDrawer && !isOpen;
    this.shade.hidden = !(isDrawer && isOpen);
    document.querySelector(".main").inert = isDrawer && isOpen;
    this.opener.setAttribute("aria-expanded", String(isDrawer && isOpen));
  }
}

function dayOf(text) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  const age = midnight - new Date(text).getTime();
  if (!(age > 0)) return gettext("Today");
  if (age <= DAY_MS) return gettext("Yesterday");
  if (age <= 7 * DAY_MS) return gettext("The last seven days");
  return gettext("Older");
}
