// What an answer is made of, in the document: text, thoughts, tool calls, and agents that were asked. One class a kind; each
// is told its item again and again, and touches only what differs.

import { h, icon, setText } from "./dom.js";
import { GrowingMarkdown, highlight } from "./markdown.js";
import { format, gettext } from "./words.js";

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
    setText(this.words, complete ? gettext("Thoughts") : gettext("Thinking…"));
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
        h("p", { class: "call-label" }, gettext("Asked with")), this.arguments,
        h("p", { class: "call-label" }, gettext("Answered")), this.result));
  }

  update({ name, arguments: given, result, complete }, isActive) {
    setText(this.name, name.replaceAll("_", " "));
    setText(this.state, complete ? "" : isActive ? gettext("running…") : gettext("waiting"));
    setText(this.arguments, pretty(given) || gettext("not shown"));
    setText(this.result, result === null ? (complete ? gettext("no result") : "…") : pretty(result) || gettext("not shown"));
    this.element.toggleAttribute("data-active", !complete && isActive);
  }
}

/** An agent that this one asked, and what it did: its own items stand in `body`. */
class SubagentView {
  constructor() {
    this.words = h("span", {});
    this.body = h("div", { class: "items" });
    this.line = h("p", { class: "subagent-line" }, icon("agent"), this.words);
    this.element = h("div", { class: "subagent" }, this.line, this.body);
  }

  update({ name, status, complete }, isActive, agentTitle) {
    const words = !complete && isActive ? gettext("%(name)s is working…") : status === "failed" ? gettext("%(name)s failed") : gettext("%(name)s was asked");
    setText(this.words, format(words, { name: agentTitle(name) }));
    this.line.toggleAttribute("data-active", !complete && isActive);
  }
}

const VIEWS = { text: TextView, reasoning: ReasoningView, tool_call: ToolView, subagent: SubagentView };

/** The items of one turn, each in its place: those of an agent that was asked stand inside that agent's own. */
export class ItemViews {
  constructor(body) {
    this.body = body;
    this.views = new Map(); // item key -> view
  }

  update(items, isActive, agentTitle) {
    const places = new Map(); // element that holds items -> how many of them were seen
    for (const item of items) {
      const home = this.views.get(`subagent:${item.within}`)?.body ?? this.body;
      const place = places.get(home) ?? 0;
      places.set(home, place + 1);
      let view = this.views.get(item.key);
      if (view === undefined) {
        view = new VIEWS[item.kind]();
        this.views.set(item.key, view);
        home.insertBefore(view.element, home.children[place] ?? null);
      }
      view.update(item, isActive, agentTitle);
    }
  }
}

/** JSON with line breaks, where it is JSON. */
function pretty(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === "string" ? value : JSON.stringify(value, null, 2);
  } catch {
    return text;
  }
}
