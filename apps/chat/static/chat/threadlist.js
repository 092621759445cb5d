// The user's threads as a list: paged, searched, renamed and deleted through the API, kept up by events.

import { askForName, askToDelete, openMenu } from "./dialogs.js";
import { announce, download, toast } from "./dom.js";
import { Sidebar } from "./sidebar.js";
import { format, gettext } from "./words.js";

export class ThreadList {
  /** `owner` has open(threadId), removed(threadId), renamed(), currentId and addresses. */
  constructor({ api, store, owner }) {
    this.api = api;
    this.store = store;
    this.owner = owner;
    this.found = null; // what a search found; null: no search
    this.state = "loading"; // or "ready", or words that say what went wrong
    this.cursor = null; // where the next page begins
    this.asked = 0; // counts requests: only the newest one's answer is wanted
    this.sidebar = new Sidebar({ owner: this, address: (id) => owner.addresses.of(id) });
  }

  load() {
    return this.fetch(this.sidebar.query, null);
  }

  search(query) {
    this.found = query ? [] : null;
    return this.fetch(query, null);
  }

  more() {
    return this.fetch(this.sidebar.query, this.cursor);
  }

  open(threadId) {
    this.owner.open(threadId);
  }

  async fetch(query, cursor) {
    const mine = ++this.asked;
    this.state = "loading";
    this.store.listing();
    this.show();
    try {
      const page = await this.api.threads(query, cursor ?? "");
      if (mine !== this.asked) return;
      this.take(page, query, cursor);
    } catch (problem) {
      if (mine !== this.asked) return;
      this.state = format(gettext("The list could not be loaded. %(why)s"), { why: problem.message });
    }
    this.show();
    this.owner.renamed();
  }

  take({ threads, next_cursor: next }, query, cursor) {
    this.state = "ready";
    this.cursor = next ?? null;
    this.store.listed(threads);
    if (query) this.found = [...(cursor ? this.found : []), ...threads.map(({ id }) => id)];
  }

  /** Titles come from the store also while a search is shown: events keep them. */
  show() {
    const threads = this.found?.map((id) => this.store.threads.get(id)).filter(Boolean) ?? this.store.threadList;
    this.sidebar.show({
      threads,
      currentId: this.owner.currentId,
      isBusy: (id) => this.store.isBusy(id),
      state: this.state,
      hasMore: this.cursor !== null,
    });
  }

  /** Nothing of it may stay: who sits here now is unknown. */
  clear() {
    this.asked += 1;
    this.found = null;
    this.sidebar.clear();
  }

  menu(threadId, button) {
    openMenu(button, (action) => {
      if (action === "rename") this.rename(threadId);
      else if (action === "delete") this.remove(threadId);
      else download(this.api.exported(threadId, action));
    });
  }

  async rename(threadId) {
    const title = await askForName(this.store.threads.get(threadId)?.title ?? "");
    if (title === null) return;
    try {
      this.store.listed([await this.api.renameThread(threadId, title)]);
      this.show();
      this.owner.renamed();
    } catch (problem) {
      toast(format(gettext("The name could not be changed. %(why)s"), { why: problem.message }));
    }
  }

  async remove(threadId) {
    if (!(await askToDelete())) return;
    try {
      await this.api.deleteThread(threadId);
    } catch (problem) {
      if (problem.status !== 404) {
        toast(format(gettext("The conversation could not be deleted. %(why)s"), { why: problem.message }));
        return;
      }
    }
    this.store.removeThread(threadId);
    announce(gettext("The conversation was deleted."));
    this.show();
    this.owner.removed(threadId);
  }
}
