// Which turns of a conversation are shown: a question can be asked in other words, and answered more than once, so the
// turns are a tree, and what is read is one way through it, ending at the thread's leaf. Pure.

/**
 * The shown turns, from the first to the last: [{turn, prompts, answers}]. `prompts` are the ids of the questions that
 * stand in this place, `answers` the turns that answer this one; both hold what is shown and what could be shown instead.
 */
export function shownTurns(conversation) {
  const tree = new Tree(conversation);
  return cutAtChoice(tree, tree.wayTo(conversation.leafId)).map((turn) => ({
    turn,
    prompts: turn.afterId === null ? tree.besides(turn.prompt) : [],
    answers: turn.afterId === null ? tree.answering(turn.prompt, turn) : [turn],
  }));
}

/** The turn to begin with where another question is chosen: the newest that answers it. */
export function newestOf(conversation, promptId) {
  return new Tree(conversation).answering({ id: promptId }).at(-1);
}

/** A turn without an answer cannot be a leaf; that it is looked at is known in this tab alone. */
function cutAtChoice(tree, way) {
  for (const [index, turn] of way.entries()) {
    const chosen = turn.prompt && tree.conversation.choices.get(turn.prompt.id);
    if (chosen && chosen !== turn.runId) return [...way.slice(0, index), tree.conversation.turns.get(chosen)];
  }
  return way;
}

class Tree {
  constructor(conversation) {
    this.conversation = conversation;
    this.byAnswer = new Map(); // id of an answer -> its turn
    this.byPrompt = new Map(); // id of a question -> the turns that answer it, as they were asked for
    this.resumed = new Map(); // id of an answer -> the newest turn that goes on from it
    this.siblings = new Map(); // what questions follow -> their ids
    for (const turn of conversation.turns.values()) this.place(turn);
  }

  place(turn) {
    for (const id of turn.answers.keys()) this.byAnswer.set(id, turn);
    if (turn.afterId !== null) {
      this.resumed.set(turn.afterId, turn);
      return;
    }
    if (turn.prompt === null) return;
    const { id } = turn.prompt;
    if (this.byPrompt.has(id)) {
      this.byPrompt.get(id).push(turn);
      return;
    }
    this.byPrompt.set(id, [turn]);
    const parent = this.conversation.parentOf(turn.prompt);
    if (!this.siblings.has(parent)) this.siblings.set(parent, []);
    this.siblings.get(parent).push(id);
  }

  /** From the first turn to the one that holds `leafId`, or to the newest where nothing does. */
  wayTo(leafId) {
    const way = [];
    let turn = this.at(leafId) ?? [...this.conversation.turns.values()].at(-1);
    while (turn !== undefined && !way.includes(turn)) {
      const resumed = this.resumed.get(turn.newest);
      const isSilent = resumed?.newest === null && !way.includes(resumed);
      if (isSilent) way.unshift(resumed); // it has said nothing, or not yet
      way.unshift(turn);
      turn = turn.afterId === null ? this.before(turn.prompt) : this.byAnswer.get(turn.afterId);
    }
    return way;
  }

  at(messageId) {
    return this.byAnswer.get(messageId) ?? this.byPrompt.get(messageId)?.at(-1);
  }

  before(prompt) {
    if (prompt === null) return undefined;
    return this.conversation.turns.get(prompt.afterRunId) ?? this.at(prompt.parentId);
  }

  besides(prompt) {
    return prompt === null ? [] : this.siblings.get(this.conversation.parentOf(prompt));
  }

  answering(prompt, otherwise) {
    return this.byPrompt.get(prompt?.id) ?? [otherwise];
  }
}
