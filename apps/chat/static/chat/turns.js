// One thread as turns: a prompt and the answer to it, one turn a run. Pure: no document, no clock, no network.
//
// A conversation is made from a snapshot and moved on by events, and comes to the same whichever of the two told it what
// happened; the server's projection follows the same rules. `apply` is total: an event that it does not know, or that
// makes no sense here, changes nothing.

export const Status = {
  QUEUED: "queued", RUNNING: "running", WAITING: "waiting", SUCCEEDED: "succeeded", FAILED: "failed",
  CANCELLED: "cancelled", TIMED_OUT: "timed_out", INTERRUPTED: "interrupted",
};
const STATUS_OF_ERROR = { timeout: Status.TIMED_OUT, interrupted: Status.INTERRUPTED };
const STATUS_OF_DECISION = { expired: Status.TIMED_OUT, cancelled: Status.CANCELLED };
const STATUS_OF_OUTCOME = { cancelled: Status.CANCELLED, interrupt: Status.WAITING };

export const isActive = (turn) => turn.status === Status.QUEUED || turn.status === Status.RUNNING;
export const isTerminal = (event) => event.type === "RUN_FINISHED" || event.type === "RUN_ERROR";

export class Conversation {
  constructor(threadId) {
    this.threadId = threadId;
    this.turns = new Map(); // run id -> turn, in the order in which the runs were asked for
    this.prompts = new Map(); // message id -> {id, text, files, parentId, afterRunId}; a retry shares the prompt of its turn
    this.interrupts = new Map(); // interrupt id -> {id, runId, reason, toolCallId, expiresAt} that waits for a decision
    this.choices = new Map(); // prompt id -> run id of an attempt without an answer that this tab looks at
    this.leafId = null; // end of the branch that is shown
    this.shape = 0; // counts what may change which turns are shown
  }

  /** What `GET /api/threads/{id}` tells. */
  static fromSnapshot(snapshot) {
    const conversation = new Conversation(snapshot.thread.id);
    for (const run of snapshot.runs) {
      Object.assign(conversation.turn(run.id), {
        status: run.status, agent: run.agent, errorCode: run.error_code, reason: run.error_message || null, afterId: run.after_id,
      });
    }
    for (const message of snapshot.messages) conversation.hold(message);
    for (const run of snapshot.runs) conversation.turn(run.id).prompt = conversation.prompts.get(run.message_id) ?? null;
    for (const interrupt of snapshot.interrupts ?? []) conversation.wait(interrupt.run_id, interrupt);
    conversation.leafId = snapshot.thread.leaf_id;
    return conversation;
  }

  /** The turn of a run, made when it is heard of for the first time. */
  turn(runId) {
    let turn = this.turns.get(runId);
    if (turn === undefined) {
      turn = {
        runId, status: Status.QUEUED, place: null, agent: null, errorCode: null, reason: null,
        afterId: null, // the answer that a resumed run goes on from
        prompt: null, // of `prompts`; turns that answer the same one again share it
        answers: new Map(), // message id -> its items: text, reasoning, calls, sub-agents
        newest: null, // id of the answer that was begun last
      };
      this.turns.set(runId, turn);
      this.shape += 1;
    }
    return turn;
  }

  /** The turn that Stop means: the one that answers now, else the one that waits longest. */
  get activeTurn() {
    let waiting = null;
    for (const turn of this.turns.values()) {
      if (turn.status === Status.RUNNING) return turn;
      if (turn.status === Status.QUEUED) waiting ??= turn;
    }
    return waiting;
  }

  /** This tab's own message was admitted; the run's events may have come before this reply, or come after it. */
  admitted({ runId, messageId, text, place, agent, editedId = null }) {
    if (this.turns.has(runId)) return;
    const turn = this.turn(runId);
    turn.agent = agent;
    turn.place = place;
    const edited = this.prompts.get(editedId);
    const at = edited ?? { parentId: this.leafId, afterRunId: null };
    this.ask(turn, { id: messageId, text, files: [], parentId: at.parentId, afterRunId: at.afterRunId });
  }

  /** Take one entry of this thread. True if something changed. */
  apply({ run_id: runId, event }) {
    if (event.type === "CUSTOM") return this.custom(runId, event.name, event.value);
    const turn = this.turns.get(runId);
    const step = STEPS[event.type];
    if (turn === undefined || step === undefined) return false;
    const before = turn.newest;
    step(turn, event);
    if (turn.newest !== before) this.begun(turn, before);
    for (const interrupt of event.outcome?.interrupts ?? []) this.wait(runId, interrupt);
    return true;
  }

  custom(runId, name, value) {
    if (name === "turnout.run.queued") return this.queued(runId, value);
    if (name === "turnout.interrupt.closed") return this.decided(runId, value);
    if (!name.startsWith("turnout.thread.") || !value || !("leaf_id" in value)) return false;
    this.show(value.leaf_id);
    return true;
  }

  decided(runId, { interrupt_id: id, how }) {
    this.interrupts.delete(id);
    const turn = this.turns.get(runId);
    if (turn?.status === Status.WAITING) turn.status = STATUS_OF_DECISION[how] ?? Status.SUCCEEDED;
    return turn !== undefined;
  }

  queued(runId, value) {
    if (!runId || (!value.message && !this.turns.has(runId))) return false;
    const turn = this.turn(runId);
    if (turn.status !== Status.QUEUED) return false;
    turn.place = value.place ?? null;
    turn.agent ??= value.message?.agent ?? null;
    turn.afterId ??= value.message?.afterId ?? null;
    const { message } = value;
    if (message) {
      this.ask(turn, { id: message.id, text: textOf(message.content), files: filesOf(message.parts), parentId: message.parentId, afterRunId: message.afterRunId });
    }
    return true;
  }

  /** The turn answers this prompt. Of a prompt that is known already, what this tab guessed is put right. */
  ask(turn, prompt) {
    const known = this.prompts.get(prompt.id);
    if (known === undefined) this.prompts.set(prompt.id, prompt);
    else if (prompt.text !== null && !this.isAnswered(known)) Object.assign(known, prompt);
    turn.prompt = known ?? prompt;
    this.show(turn.afterId ?? prompt.id);
  }

  isAnswered(prompt) {
    return [...this.turns.values()].some((turn) => turn.prompt === prompt && turn.newest !== null);
  }

  /** The turn's answer `turn.newest` was begun; `before` is the answer that it follows. */
  begun(turn, before) {
    this.shape += 1;
    if (this.leafId === (before ?? turn.afterId ?? turn.prompt?.id ?? null)) this.leafId = turn.newest;
  }

  /** Show the branch that ends here. */
  show(leafId) {
    this.leafId = leafId ?? null;
    this.choices.clear();
    this.shape += 1;
  }

  /** Look at an attempt that has no answer: no branch can end there. */
  choose(turn) {
    this.choices.set(turn.prompt.id, turn.runId);
    this.shape += 1;
  }

  /** What a prompt follows: of a message that waited behind a run, that run's newest answer. */
  parentOf({ parentId, afterRunId }) {
    const before = this.turns.get(afterRunId);
    return before === undefined ? parentId ?? null : before.newest ?? before.prompt?.id ?? null;
  }

  wait(runId, { id, reason, toolCallId, message, expiresAt }) {
    this.interrupts.set(id, { id, runId, reason, message: message ?? null, toolCallId: toolCallId ?? null, expiresAt: expiresAt ?? null });
  }

  /** What this turn waits for. */
  interruptsOf(turn) {
    return [...this.interrupts.values()].filter(({ runId }) => runId === turn.runId);
  }

  hold(message) {
    const turn = this.turn(message.run_id);
    if (message.role === "user") {
      this.prompts.set(message.id, {
        id: message.id, text: message.text, files: filesOf(message.parts), parentId: message.parent_id, afterRunId: message.after_run_id,
      });
      return;
    }
    const items = answer(turn, message.id);
    const spoken = { text: message.text, whole: true, complete: message.complete };
    const isPlaced = message.parts.some((part) => part.type === "text");
    if (!isPlaced && (message.text || !message.parts.length)) add(items, "text", message.id, spoken);
    for (const part of message.parts) {
      if (part.type === "text") add(items, "text", message.id, { ...spoken, within: part.within ?? null });
      else add(items, part.type, part.id, part);
    }
  }
}

/** The items of a turn in the order in which they are read. */
export function itemsOf(turn) {
  return [...turn.answers.values()].flatMap((items) => [...items.values()]);
}

/** The turn's own words, as one text to copy. */
export function spokenBy(turn) {
  return itemsOf(turn).filter((item) => item.kind === "text").map((item) => item.text).join("\n\n");
}

export function textItem(turn, messageId) {
  return turn.answers.get(messageId)?.get(`text:${messageId}`);
}

/** The answer's items; the answer is begun if it is new. */
function answer(turn, id) {
  if (!turn.answers.has(id)) turn.answers.set(id, new Map());
  turn.newest = id;
  return turn.answers.get(id);
}

function add(items, kind, id, values) {
  const key = `${kind}:${id}`;
  if (!items.has(key)) items.set(key, { key, kind, id, within: null, complete: false });
  return Object.assign(items.get(key), values, { kind, id });
}

/** A part belongs to the answer that is named, else to the newest, else it begins an answer. */
function addPart(turn, home, kind, id, values) {
  const items = turn.answers.get(home) ?? turn.answers.get(turn.newest) ?? answer(turn, home);
  add(items, kind, id, values);
}

/** Calls `change` with the item of this kind and id, if it goes on. */
function amend(turn, kind, id, change) {
  for (const items of turn.answers.values()) {
    const item = items.get(`${kind}:${id}`);
    if (item !== undefined && !item.complete) change(item);
  }
}

function close(turn) {
  turn.place = null;
  for (const item of itemsOf(turn)) item.complete = true;
}

const STEPS = {
  RUN_STARTED(turn) {
    turn.status = Status.RUNNING;
    turn.place = null;
  },
  RUN_FINISHED(turn, event) {
    turn.status = STATUS_OF_OUTCOME[event.outcome?.type] ?? Status.SUCCEEDED;
    if (turn.status !== Status.WAITING) close(turn); // what waits for a decision stays open
  },
  RUN_ERROR(turn, event) {
    turn.errorCode = event.code ?? "agent_error";
    turn.reason = event.message || null;
    turn.status = STATUS_OF_ERROR[event.code] ?? Status.FAILED;
    close(turn);
  },
  TEXT_MESSAGE_START(turn, { messageId, subagentRunId: within = null }) {
    const items = answer(turn, messageId);
    if (items.has(`text:${messageId}`)) items.get(`text:${messageId}`).complete = false;
    else add(items, "text", messageId, { text: "", whole: true, within });
  },
  TEXT_MESSAGE_CONTENT(turn, { messageId, delta }) {
    amend(turn, "text", messageId, (item) => { item.text += delta; });
  },
  TEXT_MESSAGE_END(turn, { messageId }) {
    amend(turn, "text", messageId, (item) => { item.complete = true; });
  },
  REASONING_MESSAGE_START(turn, { messageId, subagentRunId: within = null }) {
    addPart(turn, messageId, "reasoning", messageId, { text: "", within });
  },
  REASONING_MESSAGE_CONTENT(turn, { messageId, delta }) {
    amend(turn, "reasoning", messageId, (item) => { item.text += delta; });
  },
  REASONING_MESSAGE_END(turn, { messageId }) {
    amend(turn, "reasoning", messageId, (item) => { item.complete = true; });
  },
  TOOL_CALL_START(turn, { toolCallId, toolCallName, parentMessageId, subagentRunId: within = null }) {
    addPart(turn, parentMessageId ?? toolCallId, "tool_call", toolCallId, { name: toolCallName, arguments: "", result: null, within });
  },
  TOOL_CALL_ARGS(turn, { toolCallId, delta }) {
    amend(turn, "tool_call", toolCallId, (item) => { item.arguments += delta; });
  },
  TOOL_CALL_RESULT(turn, { toolCallId, content }) {
    amend(turn, "tool_call", toolCallId, (item) => { Object.assign(item, { result: textOf(content), complete: true }); });
  },
  SUBAGENT_STARTED(turn, { subagentRunId, name, parentSubagentRunId: within = null }) {
    addPart(turn, subagentRunId, "subagent", subagentRunId, { name, status: "running", within });
  },
  SUBAGENT_FINISHED(turn, { subagentRunId, outcome }) {
    amend(turn, "subagent", subagentRunId, (item) => {
      Object.assign(item, { status: outcome?.type ?? "success", complete: true });
    });
  },
  SUBAGENT_ERROR(turn, { subagentRunId }) {
    amend(turn, "subagent", subagentRunId, (item) => { Object.assign(item, { status: "failed", complete: true }); });
  },
};

/** The files that came with a question. */
function filesOf(parts = []) {
  return parts.filter((part) => part.type === "attachment").map(({ id, name, bytes }) => ({ id, name, bytes }));
}

/** AG-UI content is text, or a list of parts; a result that is no text is shown as its JSON. */
function textOf(content) {
  return typeof content === "string" ? content : JSON.stringify(content ?? "");
}
