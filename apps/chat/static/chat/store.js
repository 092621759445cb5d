// What this tab knows of the user's stream: the threads, the conversations that are open, and how far it has come.
//
// State and position live and die together: both change in `receive`, in one go, and `begin` forgets both. That is what
// makes "each event is applied exactly once" true in the tab.

import { Gap } from "./connection.js";
import { Conversation, isActive, isTerminal, textItem } from "./turns.js";

const OPEN_CONVERSATIONS = 12;
const HELD_EVENTS = 20_000;

const noChanges = () => ({ turns: new Map(), listed: false, removed: [], ended: [], texts: [], usage: null });

export class Store {
  constructor() {
    this.begin(null);
  }

  /** Forget everything and stand at `position` (null: nowhere yet); `seq` is null where a position did not tell it. */
  begin(position, seq = null) {
    this.position = position;
    this.seq = seq;
    this.threads = new Map(); // id -> {id, title, created_at}
    this.conversations = new Map(); // thread id -> {conversation, seq, held}; the last used one stands last
    this.running = new Map(); // run id -> thread id, of every thread
    this.touched = new Set(); // threads that events told of while a list was being loaded
  }

  /**
   * Apply a frame of events. Returns what changed: `turns` (thread id -> run ids), `listed` (the list of threads changed),
   * `removed` (thread ids), `ended` (turns that ended, with their thread), `texts` (messages that ended whole),
   * `usage` (what the user has used by now, where a run ended).
   * Throws Gap, and applies nothing, when the frame does not continue what is here.
   */
  receive(entries, position) {
    const fresh = this.seq === null ? entries : entries.filter((entry) => entry.seq > this.seq);
    let expected = this.seq === null ? fresh[0]?.seq : this.seq + 1;
    for (const entry of fresh) {
      if (entry.seq !== expected) throw new Gap(`expected ${expected}, got ${entry.seq}`);
      expected += 1;
    }
    const changes = noChanges();
    for (const entry of fresh) this.apply(entry, changes);
    if (fresh.length) {
      this.seq = fresh.at(-1).seq;
      this.position = position;
    }
    return changes;
  }

  apply(entry, changes) {
    const { thread_id: threadId, event } = entry;
    if (event.name === "turnout.usage") changes.usage = event.value;
    this.follow(entry, changes);
    const open = this.conversations.get(threadId);
    if (open === undefined) return;
    if (open.conversation === null) {
      if (open.held.length < HELD_EVENTS) open.held.push(entry);
      else open.overflowed = true;
      return;
    }
    if (entry.seq <= open.seq) return; // its snapshot was ahead of the stream
    if (!open.conversation.apply(entry)) return;
    if (!changes.turns.has(threadId)) changes.turns.set(threadId, new Set());
    changes.turns.get(threadId).add(entry.run_id);
    const turn = open.conversation.turns.get(entry.run_id);
    if (isTerminal(event)) changes.ended.push({ threadId, turn });
    if (event.type === "TEXT_MESSAGE_END") {
      const item = textItem(turn, event.messageId);
      if (item?.whole) changes.texts.push({ messageId: item.id, text: item.text });
    }
  }

  /** What concerns the list of threads, whether or not they are open. */
  follow({ thread_id: threadId, run_id: runId, event }, changes) {
    if (event.type === "CUSTOM" && event.name.startsWith("turnout.thread.")) {
      this.followThread(event.name, threadId, event.value, changes);
    } else if (runId && (event.type === "RUN_STARTED" || event.name === "turnout.run.queued")) {
      changes.listed ||= !this.running.has(runId);
      this.running.set(runId, threadId);
    } else if (isTerminal(event)) {
      changes.listed ||= this.running.delete(runId);
    }
  }

  followThread(name, threadId, value, changes) {
    const thread = value?.thread ?? value ?? {};
    const id = thread.id ?? threadId;
    if (!id) return;
    this.touched.add(id);
    changes.listed = true;
    if (name === "turnout.thread.deleted") {
      this.removeThread(id);
      changes.removed.push(id);
    } else {
      this.threads.set(id, { ...this.threads.get(id), ...thread, id });
    }
  }

  removeThread(id) {
    this.threads.delete(id);
    this.conversations.delete(id);
    for (const [run, thread] of this.running) if (thread === id) this.running.delete(run);
  }

  /** A list of threads is being asked for; call `listed` with what comes. */
  listing() {
    this.touched.clear();
  }

  /** Threads as the API listed them. What an event said of one since then is newer, and stays. */
  listed(threads) {
    for (const thread of threads) {
      if (!this.touched.has(thread.id)) this.threads.set(thread.id, { ...this.threads.get(thread.id), ...thread });
    }
  }

  /** Newest first: ids are ordered by their creation. */
  get threadList() {
    return [...this.threads.values()].sort((a, b) => (a.id < b.id ? 1 : -1));
  }

  isBusy(threadId) {
    for (const thread of this.running.values()) if (thread === threadId) return true;
    return false;
  }

  /** The conversation of a thread if it is here, as the one used last. */
  conversation(threadId) {
    const open = this.conversations.get(threadId);
    if (open === undefined) return null;
    this.conversations.delete(threadId);
    this.conversations.set(threadId, open);
    return open.conversation;
  }

  /** From now on the thread's events are held back, until `loaded` is told its snapshot. */
  loading(threadId) {
    this.conversations.set(threadId, { conversation: null, seq: null, held: [], overflowed: false });
    for (const id of this.conversations.keys()) {
      if (this.conversations.size <= OPEN_CONVERSATIONS) break;
      if (id !== threadId) this.conversations.delete(id);
    }
  }

  abandon(threadId) {
    if (this.conversations.get(threadId)?.conversation === null) this.conversations.delete(threadId);
  }

  /** The snapshot came: it, and what was held back behind it. False if too much had to be held: load again. */
  loaded(threadId, snapshot) {
    const open = this.conversations.get(threadId);
    if (open === undefined || open.overflowed) return false;
    open.conversation = Conversation.fromSnapshot(snapshot);
    open.seq = snapshot.seq;
    const held = open.held;
    open.held = [];
    this.threads.set(threadId, { ...this.threads.get(threadId), ...snapshot.thread });
    const behind = noChanges();
    for (const entry of held) {
      if (entry.seq <= snapshot.seq) continue;
      open.conversation.apply(entry);
      this.follow(entry, behind);
    }
    for (const turn of open.conversation.turns.values()) {
      if (isActive(turn)) this.running.set(turn.runId, threadId);
      else this.running.delete(turn.runId);
    }
    return true;
  }
}
