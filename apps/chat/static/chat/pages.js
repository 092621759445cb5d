// What stands where a conversation would: a welcome, a wait, or what went wrong and what to do about it.

import { h } from "./dom.js";
import { gettext } from "./words.js";

const mainButton = (words, run) => h("button", { class: "button button-main", type: "button", onclick: run }, words);

/** Nothing was asked yet. The agents are offered where there is a choice. */
export function welcome(agents, choose) {
  const cards = agents.map((agent) => h("button", { type: "button", class: "card", onclick: () => choose(agent.name) },
    h("strong", {}, agent.title), h("span", {}, agent.description)));
  return [
    h("h2", {}, gettext("What would you like to know?")),
    h("p", {}, gettext("Write below. You can close this page while an answer is made: it goes on, and is here when you come back.")),
    cards.length > 1 ? h("div", { class: "cards", role: "group", "aria-label": gettext("Agents") }, ...cards) : null,
  ];
}

export function loading() {
  return [h("p", {}, gettext("Loading the conversation…"))];
}

/** The conversation is not to be had. */
export function failure(problem, { startNew, retry }) {
  if (problem.status === 404) {
    return [
      h("h2", {}, gettext("There is no such conversation")),
      h("p", {}, gettext("It was deleted, or it belongs to another account. Begin a new one, or pick one from the list.")),
      mainButton(gettext("New conversation"), startNew),
    ];
  }
  return [h("h2", {}, gettext("The conversation could not be loaded")), h("p", {}, problem.message), mainButton(gettext("Try again"), retry)];
}

export function signedOut(loginAddress) {
  return [
    h("h2", {}, gettext("You are logged out")),
    h("p", {}, gettext("Your conversations are kept. Log in to go on; an answer that was being made goes on meanwhile.")),
    h("a", { class: "button button-main", href: loginAddress }, gettext("Log in")),
  ];
}
