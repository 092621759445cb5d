// The state of the connection in words: a lamp with a word or two always, a notice with what to do when it lasts.

import { h, setText } from "./dom.js";
import { format, gettext } from "./words.js";

const NOTICE_FROM_ATTEMPT = 2; // a line that comes back at the first try is not worth a notice
const BUTTONS = {
  waiting: { label: gettext("Reconnect now"), call: "reconnect" },
  replaced: { label: gettext("Use this tab"), call: "reconnect" },
  broken: { label: gettext("Reload"), call: "reload" },
  forbidden: { label: gettext("Reload"), call: "reload" },
};

export class Trouble {
  /** `owner` has reconnect() and reload(). */
  constructor({ pill, words, notice, login, owner }) {
    Object.assign(this, { pill, words, notice, login, owner });
    this.clock = null;
    this.text = h("p", {});
    this.button = h("button", { class: "button button-small", type: "button", onclick: () => owner[this.call]() });
    notice.append(this.text, this.button);
  }

  show(state) {
    clearInterval(this.clock);
    this.state = state;
    this.pill.dataset.state = state.name;
    this.say();
    if (state.name === "waiting") this.clock = setInterval(() => this.say(), 1000);
  }

  say() {
    const { name, words, retryAt, attempt } = this.state;
    const seconds = retryAt === null || retryAt === undefined ? 0 : Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
    setText(this.words, name === "waiting" ? (seconds > 1 ? format(gettext("Reconnecting in %(seconds)s s"), { seconds }) : gettext("Reconnecting…")) : words);
    const isShown = name in BUTTONS && (name !== "waiting" || attempt >= NOTICE_FROM_ATTEMPT || seconds > 2);
    // While a try is being made the notice stays as it was: it must not blink.
    if (name === "connecting") return;
    this.notice.hidden = !isShown;
    if (!isShown) return;
    // No count-down here: a screen reader would read each second out.
    setText(this.text, name === "waiting" ? format(gettext("%(why)s. What you write is kept, and sent when the connection is back."), { why: words }) : words);
    this.call = BUTTONS[name].call;
    setText(this.button, BUTTONS[name].label);
  }

  loginAddress() {
    return `${this.login}?next=${encodeURIComponent(location.pathname)}`;
  }
}
