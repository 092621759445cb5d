// What a user does with a turn: stop it, have it answered again, word it anew, decide what it waits for, look at another.

import { newestOf } from "./branches.js";
import { toast } from "./dom.js";
import { format, gettext } from "./words.js";

export class TurnActions {
  /** `owner` has agentTitle(name), touch(turn), currentId, conversation, and composer. */
  constructor({ api, commands, owner }) {
    this.api = api;
    this.commands = commands;
    this.owner = owner;
  }

  agentTitle(name) {
    return this.owner.agentTitle(name);
  }

  isCancelling(turn) {
    return this.commands.isCancelling(turn.runId);
  }

  cancel(turn) {
    this.commands.cancel(turn);
    this.owner.touch(turn);
  }

  retry(turn) {
    this.commands.retry(this.owner.currentId, turn);
  }

  /** Ask the question of a turn in other words: another branch, beside it. */
  edit(turn, text) {
    this.commands.edit(this.owner.currentId, turn, text, this.owner.composer.agent);
  }

  decide(interrupt, approve) {
    this.commands.decide(interrupt, approve);
  }

  /** Show another answer to the same question. */
  showTurn(turn) {
    if (turn.newest !== null) return this.showLeaf(turn.newest);
    this.owner.conversation.choose(turn);
    return this.owner.touch(turn);
  }

  showPrompt(promptId) {
    return this.showLeaf(newestOf(this.owner.conversation, promptId).newest ?? promptId);
  }

  /** The server tells all tabs where the branch ends that goes on from here. */
  async showLeaf(messageId) {
    try {
      await this.api.showBranch(this.owner.currentId, messageId);
    } catch (problem) {
      toast(format(gettext("That could not be shown. %(why)s"), { why: problem.message }));
    }
  }
}
