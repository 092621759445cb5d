// The messages of one conversation in the document. Painted at most once per animation frame, and less often when a paint
// is dear, so that reading, scrolling and typing stay smooth while a long answer streams.

import { announce, copyText, h, icon, setText } from "./dom.js";
import { GrowingMarkdown, highlight } from "./markdown.js";
import { Status, isActive, itemsOf, spokenBy } from "./turns.js";

const NEAR_END = 80; // pixels from the end within which the view follows the answer
const DEAR_MS = 8; // a paint longer than this is followed by a rest of twice its time

const ENDED_WORDS = {
  [Status.CANCELLED]: "Stopped.",
  [Status.INTERRUPTED]: "The server stopped while this was being answered. What had arrived is kept.",
  [Status.TIMED_OUT]: "The answer took too long and was ended.",
  [Status.WAITING]: "This waits for an approval.",
};
const FAILED_WORDS = {
  agent_error: "The agent failed.",
  limit_exceeded: "The answer grew beyond what is allowed, and was ended.",
  unavailable: "The model could not be reached.",
};

export class Transcript {
  /** `owner` has agentTitle(name), retry(turn), cancel(turn), isConnected() and commands. */
  constructor({ root, scroller, toEnd, owner }) {
    this.root = root;
    this.scroller = scroller;
    this.toEnd = toEnd;
    this.owner = owner;
    this.views = new Map(); // run id -> TurnView
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
    for (const turn of conversation.turns.values()) this.update(turn);
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
    for (const runId of this.dirty) this.update(this.conversation.turns.get(runId));
    this.dirty.clear();
    if (this.follows) this.scroller.scrollTop = this.scroller.scrollHeight;
    else this.toEnd.hidden = false;
    const cost = performance.now() - began;
    this.restUntil = cost > DEAR_MS ? now + 2 * cost : 0;
  }

  update(turn) {
    let view = this.views.get(turn.runId);
    if (view === undefined) {
      view = new TurnView(turn, this.owner);
      this.views.set(turn.runId, view);
      this.turns.append(view.element);
    }
    view.update(turn);
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

function bubble(text) {
  return h("div", { class: "prompt" }, h("h2", { class: "visually-hidden" }, "You"), h("div", { class: "bubble", dir: "auto" }, text));
}

function sending(frame, isConnected) {
  return h("article", { class: "turn", "data-status": "sending" },
    frame.text === undefined ? null : bubble(frame.text),
    h("p", { class: "turn-state" }, isConnected ? "Sending…" : "Will be sent when the connection is back"));
}

function refusal(frame, words, commands) {
  return h("article", { class: "turn", "data-status": "refused" },
    frame.text === undefined ? null : bubble(frame.text),
    h("div", { class: "notice notice-bad" },
      h("p", {}, h("strong", {}, "Not sent. "), words),
      h("div", { class: "notice-row" },
        h("button", { class: "button button-small", type: "button", onclick: () => commands.resend(frame) }, "Try again"),
        h("button", { class: "button button-small button-quiet", type: "button", onclick: () => commands.discard(frame) }, "Discard"))));
}

class TurnView {
  constructor(turn, owner) {
    this.owner = owner;
    this.items = new Map();
    this.prompt = null;
    this.name = h("h2", { class: "who" });
    this.body = h("div", { class: "items" });
    this.state = h("div", { class: "turn-state" });
    this.copy = h("button", { class: "button button-small button-quiet", type: "button", onclick: () => copyText(spokenBy(this.turn), this.copy) },
      icon("copy"), h("span", {}, "Copy"));
    this.retry = h("button", { class: "button button-small button-quiet", type: "button", onclick: () => owner.retry(this.turn) },
      icon("retry"), h("span", {}, "Try again"));
    this.cancel = h("button", { class: "button button-small button-quiet", type: "button", onclick: () => owner.cancel(this.turn) }, h("span", {}, "Remove from the queue"));
    this.actions = h("div", { class: "turn-actions" }, this.copy, this.retry, this.cancel);
    this.answer = h("div", { class: "answer" }, this.name, this.body, this.state, this.actions);
    this.element = h("article", { class: "turn", "data-run": turn.runId }, this.answer);
  }

  update(turn) {
    this.turn = turn;
    this.element.dataset.status = turn.status;
    if (turn.prompt !== null && this.prompt === null) {
      this.prompt = bubble(turn.prompt.text);
      this.element.prepend(this.prompt);
    }
    setText(this.name, this.owner.agentTitle(turn.agent));
    const items = itemsOf(turn);
    for (const [index, item] of items.entries()) this.showItem(item, index);
    this.showState(turn, items);
  }

  showItem(item, index) {
    let view = this.items.get(item.key);
    if (view === undefined) {
      view = new VIEWS[item.kind](item);
      this.items.set(item.key, view);
      this.body.insertBefore(view.element, this.body.children[index] ?? null);
    }
    view.update(item);
  }

  showState(turn, items) {
    const active = isActive(turn);
    this.answer.hidden = false;
    this.copy.hidden = active || !items.some((item) => item.kind === "text");
    this.retry.hidden = ![Status.FAILED, Status.CANCELLED, Status.INTERRUPTED, Status.TIMED_OUT].includes(turn.status);
    this.cancel.hidden = turn.status !== Status.QUEUED || turn.place === null || turn.place < 1;
    this.state.className = "turn-state";
    if (turn.status === Status.QUEUED) {
      setText(this.state, turn.place ? `Number ${turn.place} in your queue` : "Waiting to begin…");
    } else if (turn.status === Status.RUNNING) {
      const talks = items.some((item) => !item.complete);
      this.state.classList.toggle("working", !talks);
      setText(this.state, this.owner.commands.isCancelling(turn.runId) ? "Stopping…" : talks ? "" : "Working…");
    } else if (turn.status === Status.FAILED || turn.status === Status.TIMED_OUT) {
      this.showFailure(turn);
    } else {
      setText(this.state, ENDED_WORDS[turn.status] ?? (items.length ? "" : "There was no answer."));
    }
  }

  showFailure(turn) {
    const words = ENDED_WORDS[turn.status] ?? FAILED_WORDS[turn.errorCode] ?? "The answer failed.";
    this.state.className = "turn-state notice notice-bad";
    this.state.replaceChildren(
      h("p", {}, icon("warning"), words),
      h("p", { class: "reference" }, "Reference ", h("code", {}, turn.runId)));
  }
}

class TextView {
  constructor() {
    this.element = h("div", { class: "text", dir: "auto" });
    this.markdown = new GrowingMarkdown(this.element);
  }

  update({ text, complete }) {
    this.element.hidden = complete && !text;
    if (this.done === text.length && complete) return;
    this.element.toggleAttribute("data-streaming", !complete);
    this.markdown.show(text, complete);
    if (!complete) return;
    this.done = text.length;
    highlight(this.element);
  }
}

class ReasoningView {
  constructor() {
    this.words = h("span", {});
    this.text = h("div", { class: "text", dir: "auto" });
    this.markdown = new GrowingMarkdown(this.text);
    this.element = h("details", { class: "fold" }, h("summary", {}, icon("thought"), this.words), this.text);
  }

  update({ text, complete }) {
    setText(this.words, complete ? "Thoughts" : "Thinking…");
    this.element.toggleAttribute("data-active", !complete);
    this.markdown.show(text, complete);
  }
}

class ToolView {
  constructor() {
    this.name = h("span", {});
    this.state = h("span", { class: "fold-state" });
    this.arguments = h("pre", { tabindex: "0" });
    this.result = h("pre", { tabindex: "0" });
    this.element = h("details", { class: "fold" },
      h("summary", {}, icon("tool"), this.name, this.state),
      h("div", { class: "call" },
        h("p", { class: "call-label" }, "Asked with"), this.arguments,
        h("p", { class: "call-label" }, "Answered"), this.result));
  }

  update({ name, arguments: given, result, complete }) {
    setText(this.name, name.replaceAll("_", " "));
    setText(this.state, complete ? "" : "running…");
    setText(this.arguments, pretty(given) || "not shown");
    setText(this.result, result === null ? (complete ? "no result" : "…") : pretty(result) || "not shown");
    this.element.toggleAttribute("data-active", !complete);
  }
}

class SubagentView {
  constructor() {
    this.words = h("span", {});
    this.element = h("p", { class: "fold fold-line" }, icon("agent"), this.words);
  }

  update({ name, status, complete }) {
    const state = !complete ? " is working…" : status === "failed" ? " failed" : " was asked";
    setText(this.words, `${name}${state}`);
    this.element.toggleAttribute("data-active", !complete);
  }
}

const VIEWS = { text: TextView, reasoning: ReasoningView, tool_call: ToolView, subagent: SubagentView };

/** JSON with line breaks, where it is JSON. */
function pretty(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === "string" ? value : JSON.stringify(value, null, 2);
  } catch {
    return text;
  }
}

/** What a screen reader is told when a turn ended. */
export function announceEnd(turn) {
  const words = turn.status === Status.SUCCEEDED ? "The answer is complete." : ENDED_WORDS[turn.status] ?? FAILED_WORDS[turn.errorCode] ?? "The answer failed.";
  announce(words);
}
