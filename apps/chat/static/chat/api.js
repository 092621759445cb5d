// HTTP calls of the page: session cookie, CSRF token, problems as errors that carry the server's own words.

import { format, gettext } from "./words.js";

/** An answer that is not a success: `code` as in the API's documents, `message` fit to be shown. */
export class Problem extends Error {
  constructor(status, code, message, retryAfterS = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfterS = retryAfterS;
  }
}

const TIMEOUT_MS = 20_000;

export class Api {
  /** `signedOut` is called when the server no longer knows who asks. */
  constructor({ base, csrfCookie, signedOut }) {
    this.base = base;
    this.csrfCookie = csrfCookie;
    this.signedOut = signedOut;
  }

  threads(query = "", cursor = "") {
    const search = new URLSearchParams({ query });
    if (cursor) search.set("cursor", cursor);
    return this.call("GET", `threads?${search}`);
  }

  thread(id) {
    return this.call("GET", `threads/${encodeURIComponent(id)}`);
  }

  /** Without a title: the server makes one of the first message. */
  createThread() {
    return this.call("POST", "threads", {});
  }

  renameThread(id, title) {
    return this.call("PATCH", `threads/${encodeURIComponent(id)}`, { title });
  }

  /** Show the branch that goes on from this message, in every tab. */
  showBranch(id, messageId) {
    return this.call("PATCH", `threads/${encodeURIComponent(id)}`, { leaf_id: messageId });
  }

  deleteThread(id) {
    return this.call("DELETE", `threads/${encodeURIComponent(id)}`);
  }

  /** The address of a conversation as a file: "markdown" or "json". */
  exported(id, format) {
    return `${this.base}threads/${encodeURIComponent(id)}/export?format=${format}`;
  }

  /** Keep a file for a message; the message names its id. */
  keepFile(file) {
    const form = new FormData();
    form.append("file", file);
    return this.call("POST", "attachments", form);
  }

  file(id) {
    return `${this.base}attachments/${encodeURIComponent(id)}`;
  }

  agents() {
    return this.call("GET", "agents");
  }

  usage() {
    return this.call("GET", "usage");
  }

  me() {
    return this.call("GET", "me");
  }

  /** Raises Problem; `status` 0 means that no answer came at all. */
  async call(method, path, body) {
    const headers = { Accept: "application/json" };
    if (method !== "GET") headers["X-CSRFToken"] = this.csrfToken();
    const isForm = body instanceof FormData; // the browser says then what it is, with its boundary
    if (body !== undefined && !isForm) headers["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(this.base + path, {
        method,
        headers,
        body: body === undefined || isForm ? body : JSON.stringify(body),
        credentials: "same-origin",
        cache: "no-store",
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
    } catch {
      throw new Problem(0, "unreachable", gettext("The server could not be reached. Check your connection, then try again."));
    }
    if (response.ok) return response.status === 204 ? null : response.json();
    const problem = await response.json().catch(() => ({}));
    if (response.status === 401) this.signedOut();
    throw new Problem(
      response.status,
      problem.code ?? "unknown",
      problem.detail ?? problem.title ?? format(gettext("The server answered with %(status)s. Try again in a moment."), { status: response.status }),
      Number(response.headers.get("Retry-After")) || null,
    );
  }

  csrfToken() {
    const wanted = `${this.csrfCookie}=`;
    const found = document.cookie.split("; ").find((cookie) => cookie.startsWith(wanted));
    return found ? decodeURIComponent(found.slice(wanted.length)) : "";
  }
}
