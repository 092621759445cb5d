// One turn in the document: the question, the answer to it, and what can be done with either.

import { announce, copyText, h, icon, setText } from "./dom.js";
import { fileLink } from "./files.js";
import { ItemViews } from "./items.js";
import { Status, isActive, itemsOf, spokenBy } from "./turns.js";
import { format, gettext, moment, number } from "./words.js";

const ENDED_WORDS = {
  [Status.CANCELLED]: gettext("Stopped."),
  [Status.INTERRUPTED]: gettext("The server stopped while this was being answered. What had arrived is kept."),
  [Status.TIMED_OUT]: gettext("The answer took too long and was ended."),
};
const FAILED_WORDS = {
  agent_error: gettext("The agent failed."),
  limit_exceeded: gettext("The answer grew beyond what is allowed, and was ended."),
  unavailable: gettext("The model could not be reached."),
};
const FAILED = gettext("The answer failed.");

const smallButton = (words, sign, run) => h("button", { class: "button button-small button-quiet", type: "button", onclick: run },
  sign && icon(sign), h("span", {}, words));

/** A question as it was asked; `extra` stands below it. */
export function bubble(text, ...extra) {
  return h("div", { class: "prompt" },
    h("h2", { class: "visually-hidden" }, gettext("You")), h("div", { class: "bubble", dir: "auto" }, text), ...extra);
}

export class TurnView {
  constructor(turn, actions) {
    this.able = actions; // a TurnActions
    this.name = h("h2", { class: "who" });
    this.body = h("div", { class: "items" });
    this.items = new ItemViews(this.body);
    this.state = h("div", { class: "turn-state" });
    this.approvals = h("div", { class: "approvals" });
    this.copy = smallButton(gettext("Copy"), "copy", () => copyText(spokenBy(this.turn), this.copy));
    this.retry = smallButton("", "retry", () => actions.retry(this.turn));
    this.cancel = smallButton(gettext("Remove from the queue"), null, () => actions.cancel(this.turn));
    this.answers = new Switcher(gettext("Answers"), (turn_) => actions.showTurn(turn_));
    this.buttons = h("div", { class: "turn-actions" }, this.copy, this.retry, this.cancel, this.answers.element);
    this.answer = h("div", { class: "answer" }, this.name, this.body, this.state, this.approvals, this.buttons);
    this.question = null; // a QuestionView, once the question is known
    this.element = h("article", { class: "turn", "data-run": turn.runId }, this.answer);
  }

  /** `interrupts` are what the turn waits for; `prompts` and `answers` what could be shown in its place. */
  update({ turn, prompts, answers, interrupts }) {
    this.turn = turn;
    this.element.dataset.status = turn.status;
    if (turn.prompt?.text != null && turn.afterId === null && this.question === null) {
      this.question = new QuestionView(this.able);
      this.element.prepend(this.question.element);
    }
    this.question?.update(turn, prompts);
    setText(this.name, this.able.agentTitle(turn.agent));
    const items = itemsOf(turn);
    this.items.update(items, isActive(turn), (name) => this.able.agentTitle(name));
    this.answers.show(answers, turn);
    this.showState(turn, items, interrupts);
    this.showApprovals(turn, interrupts);
  }

  showState(turn, items, interrupts) {
    const active = isActive(turn);
    this.copy.hidden = active || !items.some((item) => item.kind === "text");
    this.retry.hidden = active || turn.status === Status.WAITING || turn.prompt === null || turn.afterId !== null;
    setText(this.retry.lastElementChild, turn.status === Status.SUCCEEDED ? gettext("Answer again") : gettext("Try again"));
    this.cancel.hidden = turn.status !== Status.QUEUED || turn.place === null || turn.place < 1;
    this.state.className = "turn-state";
    if (turn.status === Status.QUEUED) {
      setText(this.state, turn.place ? format(gettext("Number %(place)s in your queue"), { place: number(turn.place) }) : gettext("Waiting to begin…"));
    } else if (turn.status === Status.RUNNING) {
      const talks = items.some((item) => !item.complete);
      this.state.classList.toggle("working", !talks);
      setText(this.state, this.able.isCancelling(turn) ? gettext("Stopping…") : talks ? "" : gettext("Working…"));
    } else if (turn.status === Status.FAILED || turn.status === Status.TIMED_OUT) {
      this.showFailure(turn);
    } else if (turn.status === Status.WAITING) {
      setText(this.state, interrupts.length ? "" : gettext("This was waiting for a decision."));
    } else {
      setText(this.state, ENDED_WORDS[turn.status] ?? (items.length ? "" : gettext("There was no answer.")));
    }
  }

  showFailure(turn) {
    const words = turn.reason ?? ENDED_WORDS[turn.status] ?? FAILED_WORDS[turn.errorCode] ?? FAILED;
    this.state.className = "turn-state notice notice-bad";
    this.state.replaceChildren(
      h("p", {}, icon("warning"), words),
      h("p", { class: "reference" }, gettext("Run"), " ", h("code", {}, turn.runId)));
  }

  showApprovals(turn, interrupts) {
    const shown = interrupts.map(({ id }) => id).join(" ");
    if (this.approvals.dataset.shown === shown) return;
    this.approvals.dataset.shown = shown;
    const calls = new Map(itemsOf(turn).map((item) => [item.id, item]));
    this.approvals.replaceChildren(...interrupts.map((interrupt) => approval(interrupt, calls.get(interrupt.toolCallId), this.able)));
  }
}

/** The question, with its other wordings, and a field to word it anew. */
class QuestionView {
  constructor(actions) {
    this.able = actions;
    this.edit = smallButton(gettext("Edit"), "edit", () => this.open());
    this.prompts = new Switcher(gettext("Wordings"), (id) => actions.showPrompt(id));
    this.buttons = h("div", { class: "turn-actions" }, this.edit, this.prompts.element);
    this.element = h("div", {});
  }

  update(turn, prompts) {
    this.turn = turn;
    this.prompts.show(prompts, turn.prompt.id);
    const shown = JSON.stringify([turn.prompt.text, turn.prompt.files]);
    if (this.shown === shown) return;
    this.shown = shown;
    this.close();
  }

  open() {
    const field = h("textarea", { class: "edit-field", rows: "3", "aria-label": gettext("Your message, in other words"), dir: "auto" });
    field.value = this.turn.prompt.text;
    const send = () => {
      const text = field.value.trim();
      if (!text) return;
      this.close();
      this.able.edit(this.turn, text.toWellFormed?.() ?? text);
    };
    field.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Escape") this.leave();
      else if (event.key === "Enter" && !event.shiftKey) send();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    this.element.replaceChildren(h("div", { class: "edit" }, field, h("div", { class: "notice-row" },
      h("button", { class: "button button-small button-main", type: "button", onclick: send }, gettext("Send")),
      h("button", { class: "button button-small", type: "button", onclick: () => this.leave() }, gettext("Cancel")))));
    field.focus();
  }

  leave() {
    this.close();
    this.edit.focus();
  }

  close() {
    const { text, files } = this.turn.prompt;
    const links = files.map((file) => h("li", {}, fileLink(this.able.api, file)));
    this.element.replaceChildren(bubble(text, links.length ? h("ul", { class: "files" }, ...links) : null, this.buttons));
  }
}

/** “‹ 2 of 3 ›” */
class Switcher {
  constructor(label, choose) {
    const step = (by) => choose(this.choices[this.choices.indexOf(this.current) + by]);
    this.before = h("button", { class: "button button-icon button-quiet", type: "button", "aria-label": gettext("Previous"), onclick: () => step(-1) }, icon("before"));
    this.after = h("button", { class: "button button-icon button-quiet", type: "button", "aria-label": gettext("Next"), onclick: () => step(1) }, icon("after"));
    this.words = h("span", {});
    this.element = h("div", { class: "switcher", role: "group", "aria-label": label, hidden: true }, this.before, this.words, this.after);
  }

  show(choices, current) {
    Object.assign(this, { choices, current });
    this.element.hidden = choices.length < 2;
    const place = choices.indexOf(current) + 1;
    setText(this.words, format(gettext("%(place)s of %(count)s"), { place: number(place), count: number(choices.length) }));
    this.before.disabled = place <= 1;
    this.after.disabled = place >= choices.length;
  }
}

function approval(interrupt, call, actions) {
  const decide = (approve) => {
    for (const button of card.querySelectorAll("button")) button.disabled = true;
    actions.decide(interrupt, approve);
  };
  const words = interrupt.message ?? (call ? format(gettext("May “%(tool)s” be used?"), { tool: call.name.replaceAll("_", " ") }) : gettext("May this go on?"));
  const card = h("div", { class: "notice approval", role: "group", "aria-label": gettext("Approval") },
    h("p", {}, h("strong", {}, words)),
    call?.arguments ? h("pre", { tabindex: "0" }, call.arguments) : null,
    interrupt.expiresAt ? h("p", { class: "reference" }, format(gettext("Open until %(time)s"), { time: moment(interrupt.expiresAt) })) : null,
    h("div", { class: "notice-row" },
      h("button", { class: "button button-small button-main", type: "button", onclick: () => decide(true) }, gettext("Approve")),
      h("button", { class: "button button-small", type: "button", onclick: () => decide(false) }, gettext("Deny"))));
  return card;
}

/** What a screen reader is told when a turn ended. */
export function announceEnd(turn) {
  const waits = turn.status === Status.WAITING ? gettext("An approval is asked for.") : null;
  const done = turn.status === Status.SUCCEEDED ? gettext("The answer is complete.") : null;
  announce(waits ?? done ?? ENDED_WORDS[turn.status] ?? FAILED_WORDS[turn.errorCode] ?? FAILED);
}
