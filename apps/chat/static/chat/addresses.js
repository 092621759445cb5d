// The addresses of conversations, under wherever the site lives.

export class Addresses {
  constructor(home) {
    this.home = home;
  }

  /** Of a conversation; null: of the page for a new one. */
  of(threadId) {
    return threadId === null ? this.home : `${this.home}threads/${encodeURIComponent(threadId)}/`;
  }

  /** The conversation that the browser's address names, or null. */
  get current() {
    const found = /^threads\/([^/]+)\/$/.exec(location.pathname.slice(this.home.length));
    return found ? decodeURIComponent(found[1]) : null;
  }

  go(threadId) {
    if (threadId !== this.current) history.pushState(null, "", this.of(threadId));
  }
}
