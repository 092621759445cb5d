// The page: brings stream, store and views together, and decides what is shown.

import { Addresses } from "./addresses.js";
import { Api } from "./api.js";
import { Commands } from "./commands.js";
import { Composer } from "./composer.js";
import { Connection } from "./connection.js";
import { showShortcuts } from "./dialogs.js";
import { setText, toast } from "./dom.js";
import { listenForKeys } from "./keys.js";
import { ready as markdownReady } from "./markdown.js";
import { Memory } from "./memory.js";
import { Meter } from "./meter.js";
import * as pages from "./pages.js";
import { Store } from "./store.js";
import { ThreadList } from "./threadlist.js";
import { Transcript } from "./transcript.js";
import { Trouble } from "./trouble.js";
import { TurnActions } from "./turnactions.js";
import { Status } from "./turns.js";
import { announceEnd } from "./turnview.js";
import { format, gettext } from "./words.js";

const byId = (id) => document.getElementById(id);
const hasKeyboard = () => !matchMedia("(pointer: coarse)").matches; // else a focused field opens one over the page

class Chat {
  constructor(root) {
    const { userId, socket, api, home, login, csrfCookie } = root.dataset;
    this.userId = userId;
    this.addresses = new Addresses(home);
    this.currentId = this.addresses.current;
    this.agents = [];
    this.problem = null; // why the current thread is not here
    this.beginnings = 0; // what was asked for before the last one is not for us any more
    this.isSignedOut = false;
    this.memory = new Memory(userId);
    this.store = new Store();
    this.api = new Api({ base: api, csrfCookie, signedOut: () => this.signedOut() });
    this.trouble = new Trouble({
      pill: byId("connection"), words: byId("connection-words"), notice: byId("trouble"), login,
      owner: { reconnect: () => this.connection.open(), reload: () => location.reload() },
    });
    this.composer = new Composer({ memory: this.memory, api: this.api, owner: this });
    this.meter = new Meter({ element: byId("usage"), api: this.api });
    this.list = new ThreadList({ api: this.api, store: this.store, owner: this });
    this.commands = new Commands({ memory: this.memory, owner: this });
    this.actions = new TurnActions({ api: this.api, commands: this.commands, owner: this });
    this.transcript = new Transcript({
      root: byId("transcript"), scroller: byId("scroller"), toEnd: byId("to-end"), owner: this, actions: this.actions,
    });
    const address = new URL(socket, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    this.connection = new Connection(address.href, this);
  }

  async start() {
    this.listen();
    this.composer.moveTo(this.currentId ?? "new");
    this.early = this.currentId === null ? null : this.fetchSnapshot(this.currentId);
    this.connection.open();
    this.showThread();
    if (hasKeyboard()) this.composer.field.focus();
    await markdownReady;
    this.showThread(); // what came before the libraries was shown as plain text
    await this.loadAgents();
  }

  // ---- the stream

  hello({ user, head, limits }) {
    if (user.id !== this.userId) {
      // Somebody else is logged in here now: nothing of what this tab holds is theirs.
      this.forgetEverything();
      location.reload();
      return;
    }
    this.composer.limit = limits.text_bytes;
    this.composer.files.limit = limits.attachments;
    if (this.store.position !== null) this.follow();
    else this.begin(head);
  }

  reset({ head }) {
    this.early = null;
    this.begin(head);
  }

  /** Stand where the snapshot of the current thread was taken, or at the head of the stream. */
  async begin(head) {
    const beginning = ++this.beginnings;
    const threadId = this.currentId;
    const { snapshot, problem } = threadId === null ? {} : await (this.early ?? this.fetchSnapshot(threadId));
    this.early = null;
    if (beginning !== this.beginnings) return;
    if (snapshot) {
      this.store.begin(snapshot.position, snapshot.seq);
      this.store.loading(threadId);
      this.store.loaded(threadId, snapshot);
    } else {
      this.store.begin(head);
    }
    this.follow();
    if (this.currentId === threadId) {
      this.problem = problem ?? null;
      this.showThread();
    } else {
      this.openThread(this.currentId);
    }
    this.list.load();
    this.meter.load();
  }

  follow() {
    this.connection.subscribe(this.store.position, this.store.seq ?? 0);
    this.commands.resume();
  }

  events(entries, position) {
    const changes = this.store.receive(entries, position);
    const mine = changes.turns.get(this.currentId);
    if (mine) this.transcript.touch(mine);
    if (mine && this.commands.isWaiting) this.showBelow();
    if (changes.listed) {
      this.list.show();
      this.showTitle();
    }
    if (mine || changes.listed) this.showControls();
    if (changes.usage) this.meter.show(changes.usage);
    if (changes.removed.includes(this.currentId)) {
      toast(gettext("This conversation was deleted."));
      this.open(null);
    }
    for (const { threadId, turn } of changes.ended) if (threadId === this.currentId) announceEnd(turn);
    return { ended: changes.ended.length > 0, texts: changes.texts };
  }

  state(state) {
    this.trouble.show(state);
    if (state.name === "signed-out") this.signedOut();
    this.showBelow();
    this.showControls();
  }

  isConnected() {
    return this.connection.isOpen;
  }

  reply(reply) {
    this.commands.replied(reply);
  }

  // ---- commands

  async submit(text, agent, files) {
    if (this.isCreating) return;
    const threadId = this.currentId ?? (await this.createThread());
    if (threadId === null) return;
    this.composer.sent();
    this.commands.ask(threadId, text, agent, files);
    if (threadId !== this.currentId) await this.open(threadId);
  }

  async createThread() {
    this.isCreating = true;
    try {
      const thread = await this.api.createThread();
      this.store.listed([thread]);
      return thread.id;
    } catch (problem) {
      toast(format(gettext("The conversation could not be begun. %(why)s"), { why: problem.message }));
      return null;
    } finally {
      this.isCreating = false;
    }
  }

  /** A message of this tab was admitted. */
  took(frame, { run_id: runId, message_id: messageId, place }) {
    const conversation = this.store.conversation(frame.thread_id);
    if (conversation === null) return; // its snapshot is on its way, and holds the message
    const editedId = frame.parent_message_id ?? null;
    conversation.admitted({ runId, messageId, text: frame.text ?? null, place, agent: frame.agent ?? null, editedId });
    if (frame.thread_id !== this.currentId) return;
    this.transcript.touch([runId]);
    this.transcript.goToEnd();
  }

  transmit(frame) {
    if (this.connection.isOpen) this.connection.send(frame);
  }

  turnsOf(threadId) {
    return [...(this.store.conversations.get(threadId)?.conversation?.turns.values() ?? [])];
  }

  changed() {
    this.showBelow();
    this.showControls();
  }

  stop() {
    const turn = this.conversation?.activeTurn;
    if (turn) this.actions.cancel(turn);
  }

  touch(turn) {
    this.transcript.touch([turn.runId]);
  }

  // ---- threads

  get isAnswering() {
    return this.conversation?.activeTurn?.status === Status.RUNNING;
  }

  get conversation() {
    return this.currentId === null ? null : this.store.conversation(this.currentId);
  }

  open(threadId) {
    this.addresses.go(threadId);
    return this.openThread(threadId);
  }

  async openThread(threadId) {
    if (threadId !== this.currentId) {
      this.currentId = threadId;
      this.composer.moveTo(threadId ?? "new");
    }
    this.problem = null;
    this.showThread();
    this.list.show();
    if (hasKeyboard()) this.composer.field.focus();
    const isHere = threadId === null || this.store.conversations.has(threadId);
    if (!isHere && this.store.position !== null) await this.loadThread(threadId);
  }

  /** While the stream runs: hold the thread's events back, load its snapshot, go on behind it. */
  async loadThread(threadId) {
    const { beginnings } = this;
    this.store.loading(threadId);
    const { snapshot, problem } = await this.fetchSnapshot(threadId);
    if (beginnings !== this.beginnings) return;
    if (snapshot === undefined) this.store.abandon(threadId);
    else if (!this.store.loaded(threadId, snapshot)) {
      await this.loadThread(threadId);
      return;
    }
    if (threadId !== this.currentId) return;
    this.problem = problem ?? null;
    this.showThread();
    this.list.show();
  }

  async fetchSnapshot(threadId) {
    try {
      return { snapshot: await this.api.thread(threadId) };
    } catch (problem) {
      return { problem };
    }
  }

  renamed() {
    this.showTitle();
  }

  removed(threadId) {
    for (const kept of ["draft", "agent", "files"]) this.memory.set(`${kept}:${threadId}`, null);
    if (threadId === this.currentId) this.open(null);
  }

  async loadAgents() {
    try {
      this.agents = (await this.api.agents()).agents;
    } catch {
      return; // the server takes its default; the next page asks again
    }
    this.composer.offer(this.agents);
    if (this.currentId === null) this.showThread();
    else if (this.conversation) this.transcript.touch(this.conversation.turns.keys());
  }

  agentTitle(name) {
    return this.agents.find((agent) => agent.name === name)?.title ?? name ?? gettext("Answer");
  }

  // ---- what is shown

  showThread() {
    this.showTitle();
    if (this.isSignedOut) return;
    if (this.currentId === null) this.transcript.showPage(...pages.welcome(this.agents, (name) => this.chooseAgent(name)));
    else if (this.conversation) this.transcript.show(this.conversation);
    else if (this.problem) this.showProblem();
    else this.transcript.showPage(...pages.loading());
    this.composer.suggest(this.conversation ? [...this.conversation.turns.values()].at(-1)?.agent ?? null : null);
    this.showBelow();
    this.showControls();
  }

  showProblem() {
    const choices = { startNew: () => this.startNew(), retry: () => this.openThread(this.currentId) };
    this.transcript.showPage(...pages.failure(this.problem, choices));
  }

  chooseAgent(name) {
    this.composer.choose(name);
    this.composer.field.focus();
  }

  showTitle() {
    const thread = this.store.threads.get(this.currentId);
    const title = this.currentId === null ? gettext("New conversation") : thread?.title || gettext("Conversation");
    setText(byId("title"), title);
    document.title = `${title} – Turnout`;
    byId("thread-actions").hidden = thread === undefined;
  }

  showBelow() {
    if (this.currentId === null) return;
    this.transcript.showBelow(this.commands.below(this.currentId));
  }

  showControls() {
    const blocked = this.isSignedOut || this.problem?.status === 404;
    this.composer.show({ answering: this.isAnswering, blocked });
    byId("scroller").setAttribute("aria-busy", String(this.isAnswering));
  }

  // ---- who is here

  signedOut() {
    if (this.isSignedOut) return;
    this.isSignedOut = true;
    this.beginnings += 1;
    this.connection.close();
    this.trouble.show({ name: "signed-out", words: gettext("You are logged out") });
    this.store.begin(null);
    this.list.clear();
    this.meter.clear();
    this.transcript.showPage(...pages.signedOut(this.trouble.loginAddress()));
    this.composer.field.value = ""; // the draft stays in the tab's storage, for the same user only
    this.showTitle();
    this.showControls();
  }

  forgetEverything() {
    this.isSignedOut = true;
    this.beginnings += 1;
    this.connection.close();
    this.store.begin(null);
    this.list.clear();
    this.meter.clear();
    this.transcript.clear();
    this.memory.clear();
    this.composer.field.value = "";
  }

  // ---- keys and clicks

  listen() {
    addEventListener("popstate", () => this.openThread(this.addresses.current));
    addEventListener("pageshow", ({ persisted }) => { if (persisted) location.reload(); });
    byId("log-out").addEventListener("submit", () => this.forgetEverything());
    byId("new-thread").addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      this.startNew();
    });
    byId("thread-actions").addEventListener("click", ({ currentTarget }) => this.list.menu(this.currentId, currentTarget));
    byId("open-shortcuts").addEventListener("click", showShortcuts);
    listenForKeys({
      startNew: () => this.startNew(), search: () => this.list.sidebar.goToSearch(), showKeys: showShortcuts,
      write: () => this.composer.field.focus(), stop: () => this.stop(),
    }, () => this.isAnswering);
  }

  startNew() {
    this.list.sidebar.close();
    this.open(null);
    this.composer.field.focus();
  }
}

new Chat(byId("app")).start();
