// What the user has used today of what they may, in words below their name.

import { setText } from "./dom.js";
import { format, gettext, number } from "./words.js";

export class Meter {
  constructor({ element, api }) {
    this.element = element;
    this.api = api;
  }

  /** Ask the server; from then on the events of runs that end tell it. */
  async load() {
    try {
      const { used, quota } = await this.api.usage();
      this.show({ today: used, quota });
    } catch {
      this.clear(); // it is a help, and not worth a notice: who is over the quota is told when it matters
    }
  }

  show({ today, quota }) {
    const words = quota ? gettext("%(used)s of %(quota)s tokens today") : gettext("%(used)s tokens today");
    setText(this.element, format(words, { used: number(today), quota: number(quota ?? 0) }));
    this.element.toggleAttribute("data-full", Boolean(quota) && today >= quota);
  }

  clear() {
    setText(this.element, "");
  }
}
