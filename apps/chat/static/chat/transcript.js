// The messages of one conversation in the document. Painted at most once per animation frame, and less often when a paint
// is dear, so that reading, scrolling and typing stay smooth while a long answer streams.

import { shownTurns } from "./branches.js";
import { copyText, h } from "./dom.js";
import { TurnView, bubble } from "./turnview.js";
import { gettext } from "./words.js";

const NEAR_END = 80; // pixels from the end within which the view follows the answer
const DEAR_MS = 8; // a paint longer than this is followed by a rest of twice its time

export class Transcript {
  /** `owner` has isConnected() and commands; `actions` are what can be done with a turn. */
  constructor({ root, scroller, toEnd, owner, actions }) {
    this.root = root;
    this.scroller = scroller;
    this.toEnd = toEnd;
    this.owner = owner;
    this.actions = actions;
    this.views = new Map(); // run id -> TurnView of a shown turn
    this.conversation = null;
    this.dirty = new Set();
    this.frame = null;
    this.follows = true;
    this.restUntil = 0;
    scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    toEnd.addEventListener("click", () => this.goToEnd());
    root.addEventListener("click", (event) => {
      const button = event.target.closest("[data-copy=code]");
      if (button) copyText(button.closest(".code").querySelector("code").textContent, button);
    });
  }

  /** Show a conversation from its beginning. */
  show(conversation) {
    this.clear();
    this.conversation = conversation;
    this.turns = h("div", { class: "turns" });
    this.waiting = h("div", { class: "turns" });
    this.root.append(this.turns, this.waiting);
    this.arrange();
    this.goToEnd();
  }

  /** Show a page instead of a conversation: an empty state, a wait or a problem. */
  showPage(...children) {
    this.clear();
    this.root.append(h("div", { class: "page" }, ...children));
  }

  clear() {
    cancelAnimationFrame(this.frame);
    this.frame = null;
    this.views.clear();
    this.dirty.clear();
    this.conversation = null;
    this.root.replaceChildren();
    this.toEnd.hidden = true;
  }

  /** These turns changed; they are painted soon. */
  touch(runIds) {
    for (const runId of runIds) this.dirty.add(runId);
    this.frame ??= requestAnimationFrame((now) => this.paint(now));
  }

  paint(now) {
    if (now < this.restUntil) {
      this.frame = requestAnimationFrame((later) => this.paint(later));
      return;
    }
    this.frame = null;
    const began = performance.now();
    if (this.shape !== this.conversation.shape) this.arrange();
    else for (const runId of this.dirty) this.update(runId);
    this.dirty.clear();
    if (this.follows) this.scroller.scrollTop = this.scroller.scrollHeight;
    else this.toEnd.hidden = false;
    const cost = performance.now() - began;
    this.restUntil = cost > DEAR_MS ? now + 2 * cost : 0;
  }

  /** Another branch, or a turn more: show the turns that are read now, and no others. */
  arrange() {
    this.shape = this.conversation.shape;
    const shown = new Map(shownTurns(this.conversation).map((place) => [place.turn.runId, place]));
    for (const [runId, { view }] of this.views) {
      if (shown.has(runId)) continue;
      view.element.remove();
      this.views.delete(runId);
    }
    let next = this.turns.firstElementChild;
    for (const [runId, place] of shown) {
      const view = this.views.get(runId)?.view ?? new TurnView(place.turn, this.actions);
      this.views.set(runId, { view, place });
      if (view.element === next) next = next.nextElementSibling;
      else this.turns.insertBefore(view.element, next);
      this.update(runId);
    }
  }

  update(runId) {
    const shown = this.views.get(runId);
    if (shown === undefined) return;
    shown.view.update({ ...shown.place, interrupts: this.conversation.interruptsOf(shown.place.turn) });
  }

  /** Messages of this tab that the server has not confirmed, and those it refused. */
  showBelow({ unanswered, refused }) {
    if (this.conversation === null) return;
    this.waiting.replaceChildren(
      ...unanswered.map((frame) => sending(frame, this.owner.isConnected())),
      ...refused.map(({ frame, words }) => refusal(frame, words, this.owner.commands)),
    );
    if (unanswered.length || refused.length) this.goToEnd();
  }

  scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    this.follows = scrollHeight - scrollTop - clientHeight < NEAR_END;
    if (this.follows) this.toEnd.hidden = true;
  }

  goToEnd() {
    this.follows = true;
    this.toEnd.hidden = true;
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }
}

function sending(frame, isConnected) {
  return h("article", { class: "turn", "data-status": "sending" },
    frame.text === undefined ? null : bubble(frame.text),
    h("p", { class: "turn-state" }, isConnected ? gettext("Sending…") : gettext("Will be sent when the connection is back")));
}

function refusal(frame, words, commands) {
  return h("article", { class: "turn", "data-status": "refused" },
    frame.text === undefined ? null : bubble(frame.text),
    h("div", { class: "notice notice-bad" },
      h("p", {}, h("strong", {}, gettext("Not sent."), " "), words),
      h("div", { class: "notice-row" },
        h("button", { class: "button button-small", type: "button", onclick: () => commands.resend(frame) }, gettext("Try again")),
        h("button", { class: "button button-small button-quiet", type: "button", onclick: () => commands.discard(frame) }, gettext("Discard")))));
}
