// The page: brings stream, store and views together, and decides what is shown.

import { Api } from "./api.js";
import { Composer } from "./composer.js";
import { Connection } from "./connection.js";
import { askForName, askToDelete, isDialogOpen, openMenu, showShortcuts } from "./dialogs.js";
import { announce, h, setText, toast } from "./dom.js";
import { ready as markdownReady } from "./markdown.js";
import { Memory } from "./memory.js";
import { Outbox } from "./outbox.js";
import { Sidebar } from "./sidebar.js";
import { Store } from "./store.js";
import { Trouble } from "./trouble.js";
import { Transcript, announceEnd } from "./transcript.js";
import { Status } from "./turns.js";

const byId = (id) => document.getElementById(id);
const TITLE_LENGTH = 60;

class Chat {
  constructor(root) {
    const { userId, socket, api, home, login, csrfCookie } = root.dataset;
    this.userId = userId;
    this.home = home;
    this.memory = new Memory(userId);
    this.store = new Store();
    this.agents = [];
    this.refused = []; // {frame, words}: messages that the server did not take
    this.found = null; // what a search found; null: no search
    this.listState = "loading";
    this.cursor = null;
    this.epoch = 0; // counts beginnings; what was asked for before one is not for us any more
    this.threadId = threadInAddress(home);
    this.api = new Api({ base: api, csrfCookie, signedOut: () => this.signedOut() });
    this.trouble = new Trouble({
      pill: byId("connection"), words: byId("connection-words"), notice: byId("trouble"), login,
      owner: { reconnect: () => this.connection.open(), reload: () => location.reload() },
    });
    this.composer = new Composer({ memory: this.memory, owner: this });
    this.sidebar = new Sidebar({ owner: this, address: (id) => this.addressOf(id) });
    this.transcript = new Transcript({ root: byId("transcript"), scroller: byId("scroller"), toEnd: byId("to-end"), owner: this });
    this.outbox = new Outbox({
      memory: this.memory,
      send: (frame) => this.connection.isOpen && this.connection.send(frame),
      answered: (frame, reply) => this.answered(frame, reply),
    });
    const address = new URL(socket, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    this.connection = new Connection(address.href, this);
  }

  async start() {
    this.listen();
    this.composer.moveTo(this.threadId ?? "new");
    this.showThread();
    this.snapshot = this.threadId ? this.fetchSnapshot(this.threadId) : null;
    this.connection.open();
    await markdownReady;
    this.showThread();
    if (!matchMedia("(pointer: coarse)").matches) this.composer.field.focus();
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
    if (this.store.position !== null) this.follow();
    else this.begin(head);
  }

  reset({ head }) {
    this.snapshot = null;
    this.begin(head);
  }

  /** Start from a snapshot of the thread that is open, or from the head of the stream. */
  async begin(head) {
    const epoch = ++this.epoch;
    const threadId = this.threadId;
    const fetched = threadId ? await (this.snapshot ?? this.fetchSnapshot(threadId)) : null;
    this.snapshot = null;
    if (epoch !== this.epoch) return;
    if (fetched?.snapshot) {
      this.store.begin(fetched.snapshot.position, fetched.snapshot.seq);
      this.store.loading(threadId);
      this.store.loaded(threadId, fetched.snapshot);
    } else {
      this.store.begin(head);
    }
    this.problem = fetched?.problem ?? null;
    this.follow();
    if (this.threadId === threadId) this.showThread();
    else this.openThread(this.threadId);
    this.loadThreads();
  }

  follow() {
    this.connection.subscribe(this.store.position, this.store.seq ?? 0);
    this.outbox.resend();
    this.showUnanswered();
  }

  events(entries, position) {
    const changes = this.store.receive(entries, position);
    const mine = changes.turns.get(this.threadId);
    if (mine) this.transcript.touch(mine);
    if (changes.removed.includes(this.threadId)) this.threadIsGone();
    if (changes.listed) this.showList();
    if (mine || changes.listed) this.showControls();
    for (const { threadId, turn } of changes.ended) if (threadId === this.threadId) announceEnd(turn);
    return { ended: changes.ended.length > 0, texts: changes.texts };
  }

  state(state) {
    this.trouble.show(state);
    if (state.name === "signed-out") this.signedOut();
    this.showUnanswered();
    this.showControls();
  }

  isConnected() {
    return this.connection.isOpen;
  }

  reply(reply) {
    this.outbox.replied(reply);
  }

  // ---- commands

  async submit(text, agent) {
    if (this.creating) return;
    let threadId = this.threadId;
    if (threadId === null) {
      this.creating = true;
      try {
        const thread = await this.api.createThread(titleFrom(text));
        threadId = thread.id;
        this.store.listed([thread]);
      } catch (problem) {
        toast(`The conversation could not be begun. ${problem.message}`);
        return;
      } finally {
        this.creating = false;
      }
    }
    this.composer.sent();
    this.outbox.put({ type: "run.start", thread_id: threadId, text, if_busy: "enqueue", ...(agent ? { agent } : {}) });
    if (threadId === this.threadId) {
      this.showUnanswered();
      return;
    }
    await this.openThread(threadId);
  }

  answered(frame, reply) {
    const refused = reply.ok ? null : reply.error.message;
    if (frame.type === "run.start") {
      if (reply.ok) this.admitted(frame, reply.result);
      else this.refused.push({ frame, words: refused });
      this.showUnanswered();
    } else if (refused && reply.error.code !== "run_finished") {
      toast(`That could not be stopped. ${refused}`);
    }
    this.showControls();
  }

  admitted(frame, result) {
    const conversation = this.store.conversation(frame.thread_id);
    conversation?.admitted({
      runId: result.run_id, messageId: result.message_id, text: frame.text ?? null, place: result.place, agent: frame.agent ?? null,
    });
    if (conversation && frame.thread_id === this.threadId) {
      this.transcript.touch([result.run_id]);
      this.transcript.goToEnd();
    }
  }

  stop() {
    const turn = this.conversation?.activeTurn;
    if (turn) this.cancel(turn);
  }

  cancel(turn) {
    if (this.outbox.isCancelling(turn.runId)) return;
    this.outbox.put({ type: "run.cancel", run_id: turn.runId });
    announce("Stopping the answer.");
    this.transcript.touch([turn.runId]);
  }

  isCancelling(runId) {
    return this.outbox.isCancelling(runId);
  }

  retry(turn) {
    const agent = turn.agent ? { agent: turn.agent } : {};
    this.outbox.put({ type: "run.start", thread_id: this.threadId, retry_of: turn.runId, if_busy: "enqueue", ...agent });
    this.showUnanswered();
  }

  resend(frame) {
    this.discard(frame);
    const { id: _old, ...command } = frame;
    this.outbox.put(command);
    this.showUnanswered();
  }

  discard(frame) {
    this.refused = this.refused.filter((entry) => entry.frame !== frame);
    this.showUnanswered();
  }

  // ---- threads

  get conversation() {
    return this.threadId === null ? null : this.store.conversation(this.threadId);
  }

  addressOf(threadId) {
    return threadId === null ? this.home : `${this.home}threads/${encodeURIComponent(threadId)}/`;
  }

  open(threadId) {
    history.pushState(null, "", this.addressOf(threadId));
    return this.openThread(threadId);
  }

  async openThread(threadId) {
    if (threadId !== threadInAddress(this.home)) history.pushState(null, "", this.addressOf(threadId));
    if (threadId !== this.threadId) {
      this.threadId = threadId;
      this.problem = null;
      this.composer.moveTo(threadId ?? "new");
    }
    this.showThread();
    this.showList();
    if (!matchMedia("(pointer: coarse)").matches) this.composer.field.focus();
    if (threadId === null || this.store.position === null || this.store.conversations.has(threadId)) return;
    await this.loadThread(threadId);
  }

  /** With the stream running: hold the thread's events back, load the snapshot, go on behind it. */
  async loadThread(threadId) {
    const epoch = this.epoch;
    this.store.loading(threadId);
    const { snapshot, problem } = await this.fetchSnapshot(threadId);
    if (epoch !== this.epoch) return;
    if (snapshot === undefined) this.store.abandon(threadId);
    else if (!this.store.loaded(threadId, snapshot)) {
      await this.loadThread(threadId);
      return;
    }
    if (threadId !== this.threadId) return;
    this.problem = problem ?? null;
    this.showThread();
    this.showList();
  }

  async fetchSnapshot(threadId) {
    try {
      return { snapshot: await this.api.thread(threadId) };
    } catch (problem) {
      return { problem };
    }
  }

  async loadThreads() {
    await this.loadList("", null);
  }

  async search(query) {
    this.found = query ? [] : null;
    await this.loadList(query, null);
  }

  async more() {
    await this.loadList(this.sidebar.query, this.cursor);
  }

  async loadList(query, cursor) {
    const epoch = this.epoch;
    this.listState = "loading";
    if (!query) this.store.listing();
    this.showList();
    try {
      const page = await this.api.threads(query, cursor ?? "");
      if (epoch !== this.epoch || query !== this.sidebar.query) return;
      this.cursor = page.next_cursor ?? null;
      this.listState = "ready";
      if (query) this.found = [...(cursor ? this.found : []), ...page.threads];
      else this.store.listed(page.threads);
    } catch (problem) {
      if (epoch !== this.epoch) return;
      this.listState = `The list could not be loaded. ${problem.message}`;
    }
    this.showList();
    this.showTitle();
  }

  async loadAgents() {
    try {
      const { agents } = await this.api.agents();
      this.agents = agents;
    } catch {
      return; // the server chooses its default; a later page load asks again
    }
    this.composer.offer(this.agents);
    if (this.threadId === null) this.showThread();
    else if (this.conversation) this.transcript.touch(this.conversation.turns.keys());
  }

  agentTitle(name) {
    return this.agents.find((agent) => agent.name === name)?.title ?? name ?? this.agents[0]?.title ?? "Answer";
  }

  menu(threadId, button) {
    openMenu(button, (action) => (action === "rename" ? this.rename(threadId) : this.remove(threadId)));
  }

  async rename(threadId) {
    const title = await askForName(this.store.threads.get(threadId)?.title ?? "");
    if (title === null) return;
    try {
      const thread = await this.api.renameThread(threadId, title);
      this.store.listed([thread]);
      this.found = this.found?.map((one) => (one.id === threadId ? { ...one, ...thread } : one)) ?? null;
      this.showList();
      this.showTitle();
    } catch (problem) {
      toast(`The name could not be changed. ${problem.message}`);
    }
  }

  async remove(threadId) {
    if (!(await askToDelete())) return;
    try {
      await this.api.deleteThread(threadId);
    } catch (problem) {
      if (problem.code !== "not_found") {
        toast(`The conversation could not be deleted. ${problem.message}`);
        return;
      }
    }
    this.memory.set(`draft:${threadId}`, null);
    this.store.removeThread(threadId);
    this.found = this.found?.filter((one) => one.id !== threadId) ?? null;
    announce("The conversation was deleted.");
    if (threadId === this.threadId) await this.open(null);
    else this.showList();
  }

  threadIsGone() {
    toast("This conversation was deleted, here or in another tab.");
    this.open(null);
  }

  // ---- what is shown

  showThread() {
    this.showTitle();
    if (this.isSignedOut) return;
    if (this.threadId === null) this.showWelcome();
    else if (this.conversation) this.transcript.show(this.conversation);
    else if (this.problem) this.showProblem(this.problem);
    else this.transcript.showPage(h("p", { class: "page-wait" }, "Loading the conversation…"));
    this.showUnanswered();
    this.showControls();
  }

  showWelcome() {
    const cards = this.agents.map((agent) => h("button", {
      type: "button", class: "card",
      onclick: () => {
        this.composer.choose(agent.name);
        this.composer.field.focus();
      },
    }, h("strong", {}, agent.title), h("span", {}, agent.description)));
    this.transcript.showPage(
      h("h2", {}, "What would you like to know?"),
      h("p", {}, "Write below. You can close this page while an answer is made: it goes on, and is here when you come back."),
      cards.length > 1 ? h("div", { class: "cards", role: "group", "aria-label": "Who answers" }, ...cards) : null);
  }

  showProblem(problem) {
    const isGone = problem.status === 404;
    this.transcript.showPage(
      h("h2", {}, isGone ? "There is no such conversation" : "The conversation could not be loaded"),
      h("p", {}, isGone ? "It was deleted, or it belongs to another account. Begin a new one, or pick one from the list." : problem.message),
      isGone
        ? h("button", { class: "button button-main", type: "button", onclick: () => this.open(null) }, "New conversation")
        : h("button", { class: "button button-main", type: "button", onclick: () => this.openThread(this.threadId) }, "Try again"));
  }

  showTitle() {
    const thread = this.threadId === null ? null : this.store.threads.get(this.threadId);
    const title = this.threadId === null ? "New conversation" : thread?.title || (this.problem ? "Not here" : "Conversation");
    setText(byId("title"), title);
    document.title = `${title} – Turnout`;
    byId("thread-actions").hidden = thread === null || thread === undefined;
  }

  showList() {
    if (this.isSignedOut) return;
    this.sidebar.show({
      threads: this.found ?? this.store.threadList,
      currentId: this.threadId,
      isBusy: (id) => this.store.isBusy(id),
      state: this.listState,
      hasMore: this.cursor !== null,
    });
    this.showTitle();
  }

  showUnanswered() {
    if (this.threadId === null) return;
    this.transcript.showUnanswered(
      this.outbox.messages(this.threadId),
      this.refused.filter(({ frame }) => frame.thread_id === this.threadId));
  }

  showControls() {
    const turn = this.conversation?.activeTurn ?? null;
    const blocked = this.isSignedOut || this.problem?.status === 404;
    this.composer.show({ answering: turn !== null && turn.status === Status.RUNNING, blocked });
    byId("scroller").setAttribute("aria-busy", String(turn?.status === Status.RUNNING));
  }

  // ---- who is here

  signedOut() {
    if (this.isSignedOut) return;
    this.isSignedOut = true;
    this.connection.close();
    this.trouble.show({ name: "signed-out", words: "You are logged out" });
    this.epoch += 1;
    this.store.begin(null);
    this.sidebar.clear();
    this.transcript.showPage(
      h("h2", {}, "You are logged out"),
      h("p", {}, "Your conversations are kept. Log in to go on; an answer that was being made goes on meanwhile."),
      h("a", { class: "button button-main", href: this.trouble.loginAddress() }, "Log in"));
    this.composer.field.value = ""; // the draft stays in the tab's storage, for the same user only
    this.showTitle();
    this.showControls();
  }

  forgetEverything() {
    this.isSignedOut = true;
    this.connection.close();
    this.store.begin(null);
    this.transcript.clear();
    this.sidebar.clear();
    this.memory.clear();
    this.composer.field.value = "";
  }

  listen() {
    addEventListener("popstate", () => this.openThread(threadInAddress(this.home)));
    addEventListener("pageshow", ({ persisted }) => { if (persisted) location.reload(); });
    byId("log-out").addEventListener("submit", () => this.forgetEverything());
    byId("new-thread").addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      this.startNew();
    });
    byId("thread-actions").addEventListener("click", ({ currentTarget }) => this.menu(this.threadId, currentTarget));
    byId("open-shortcuts").addEventListener("click", showShortcuts);
    addEventListener("keydown", (event) => this.pressed(event));
  }

  startNew() {
    this.sidebar.close();
    this.open(null);
    this.composer.field.focus();
  }

  pressed(event) {
    if (event.defaultPrevented || event.isComposing || isDialogOpen()) return;
    const command = event.ctrlKey || event.metaKey;
    const key = event.key.toLowerCase();
    const isWriting = event.target.matches?.("input, textarea, select");
    const action =
      command && event.shiftKey && key === "o" ? () => this.startNew()
      : command && key === "k" ? () => this.goToSearch()
      : (command && key === "/") || (key === "?" && !isWriting) ? showShortcuts
      : key === "escape" && event.shiftKey ? () => this.composer.field.focus()
      : key === "escape" && this.conversation?.activeTurn?.status === Status.RUNNING ? () => this.stop()
      : null;
    if (action === null) return;
    event.preventDefault();
    action();
  }

  goToSearch() {
    if (this.sidebar.narrow.matches) this.sidebar.open();
    this.sidebar.field.focus();
    this.sidebar.field.select();
  }
}

function threadInAddress(home) {
  const found = /^threads\/([^/]+)\/$/.exec(location.pathname.slice(home.length));
  return found ? decodeURIComponent(found[1]) : null;
}

/** The first line of a message, cut at a word. */
function titleFrom(text) {
  const line = text.split("\n", 1)[0].trim();
  if (line.length <= TITLE_LENGTH) return line;
  const cut = line.slice(0, TITLE_LENGTH);
  return `${cut.slice(0, cut.lastIndexOf(" ") > 20 ? cut.lastIndexOf(" ") : TITLE_LENGTH).toWellFormed?.() ?? cut}…`;
}

new Chat(byId("app")).start();
