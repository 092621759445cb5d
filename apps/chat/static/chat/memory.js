// What this tab remembers over a reload: drafts, unanswered commands, the chosen agent. All of it is keyed by the user's
// id, and what belongs to anybody else is removed as soon as a page opens.

const PREFIX = "turnout:";

export class Memory {
  /** `storage` is the tab's sessionStorage (one tab, one person); a browser that refuses it costs the drafts only. */
  constructor(userId, storage = sessionStorage) {
    this.own = `${PREFIX}${userId}:`;
    this.storage = storage;
    this.forget((key) => !key.startsWith(this.own));
  }

  get(key, otherwise = null) {
    try {
      const text = this.storage.getItem(this.own + key);
      return text === null ? otherwise : JSON.parse(text);
    } catch {
      return otherwise;
    }
  }

  set(key, value) {
    try {
      if (value === null || value === "") this.storage.removeItem(this.own + key);
      else this.storage.setItem(this.own + key, JSON.stringify(value));
    } catch {
      // Full or forbidden: the page still holds the value, it will only not survive a reload.
    }
  }

  /** Remove all that the page ever stored in this tab. */
  clear() {
    this.forget(() => true);
  }

  forget(unwanted) {
    try {
      for (const key of Object.keys(this.storage)) {
        if (key.startsWith(PREFIX) && unwanted(key)) this.storage.removeItem(key);
      }
    } catch {
      // as above
    }
  }
}
