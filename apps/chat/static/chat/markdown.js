// Markdown of an answer as inert elements. What a model writes is hostile until shown otherwise.
//
// Three walls: marked is told to render raw HTML as text, links only to the web or to mail, and images as links; DOMPurify
// lets a short list of elements through; the page's Content-Security-Policy runs nothing that got past both. Without
// the libraries the text is shown as it is.

import { format, gettext } from "./words.js";

const TAGS = [
  "p", "br", "hr", "strong", "em", "del", "code", "pre", "blockquote", "ul", "ol", "li", "a",
  "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td",
];
const ATTRIBUTES = ["href", "class", "start", "align"];
const HIGHLIGHT_UP_TO = 50_000; // characters; colouring more would hold up the page
const LINKS = new Set(["http:", "https:", "mailto:"]);

let parser = null; // the libraries as they are used here; null: answers are shown as plain text
let highlighter = null; // asked for with the first code block

/** Resolves when the libraries are here, or cannot be had. */
export const ready = load();

async function load() {
  try {
    const [{ Marked, Lexer, Parser }, { default: purifier }] = await Promise.all([
      import("../vendor/marked.js"),
      import("../vendor/dompurify.js"),
    ]);
    const marked = new Marked({ gfm: true, renderer: RENDERER });
    const rules = { ALLOWED_TAGS: TAGS, ALLOWED_ATTR: ATTRIBUTES, ALLOW_DATA_ATTR: false, ALLOW_ARIA_ATTR: false, RETURN_DOM_FRAGMENT: true };
    const colours = { ALLOWED_TAGS: ["span"], ALLOWED_ATTR: ["class"], ALLOW_DATA_ATTR: false, RETURN_DOM_FRAGMENT: true };
    parser = {
      Lexer,
      Parser,
      options: marked.defaults,
      sanitize: (html) => purifier.sanitize(html, rules),
      sanitizeColours: (html) => purifier.sanitize(html, colours),
    };
  } catch {
    console.info("Markdown libraries are missing; answers are shown as plain text. Run: manage.py fetch_browser_libraries");
  }
}

const escapeText = (text) => text.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);

/** The address a link may lead to, or null. */
function safeAddress(text) {
  try {
    const address = new URL(text);
    return LINKS.has(address.protocol) ? address : null;
  } catch {
    return null; // relative addresses too: the model does not know where this page is
  }
}

function renderLink(href, inner) {
  const address = safeAddress(href);
  return address === null ? inner : `<a href="${escapeText(address.href)}">${inner}</a>`;
}

const RENDERER = {
  html: ({ text, block }) => (block ? `<p>${escapeText(text)}</p>` : escapeText(text)),
  heading({ tokens, depth }) {
    const level = Math.min(depth + 2, 6); // the page has its own first and second level
    return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>\n`;
  },
  link({ href, tokens }) { return renderLink(href, this.parser.parseInline(tokens)); },
  // Loading an image would tell its server who reads, and when: the reader decides.
  image: ({ href, text }) => renderLink(href, escapeText(format(gettext("Image: %(text)s"), { text: text || gettext("without a description") }))),
  checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  code({ text, lang }) {
    const language = /^[\w+#.-]{1,30}/.exec(lang ?? "")?.[0] ?? "";
    return `<pre><code${language ? ` class="language-${escapeText(language)}"` : ""}>${escapeText(text)}</code></pre>\n`;
  },
};

/** A text that grows. Only what may still change is parsed again; what is finished keeps its elements. */
export class GrowingMarkdown {
  constructor(element) {
    this.element = element;
    this.blocks = []; // {raw, type, nodes}: what is shown, in order
    this.settled = 0; // blocks that cannot change any more
    this.offset = 0; // where in the text the first block that can change begins
    this.links = {}; // link definitions that were settled
    this.length = -1;
    this.plain = null;
  }

  /** Show `text`, which continues what was shown before; `complete`: it is the whole of it. */
  show(text, complete) {
    if (text.length === this.length && !complete) return;
    this.length = text.length;
    if (parser === null || this.plain !== null) {
      this.showPlain(text);
      return;
    }
    if (complete) this.offset = this.settled = 0; // a definition at the end may concern the beginning
    try {
      const tokens = lex(text.slice(this.offset), complete ? {} : this.links);
      this.replace(tokens);
      if (!complete) this.settle(tokens);
    } catch (problem) {
      if (!(problem instanceof RangeError)) throw problem;
      this.showPlain(text); // nested beyond the parser's stack
    }
  }

  showPlain(text) {
    if (this.plain === null) {
      this.plain = document.createElement("p");
      this.plain.className = "plain";
      this.element.replaceChildren(this.plain);
    }
    this.plain.textContent = text;
  }

  /** Make the blocks from `settled` on what `tokens` say, touching only those that differ. */
  replace(tokens) {
    const blocks = tokens.filter((token) => token.type !== "space" && token.type !== "def");
    for (const [index, token] of blocks.entries()) {
      const at = this.settled + index;
      const old = this.blocks[at];
      if (old?.raw === token.raw && old.links === tokens.linkNames) continue;
      if (old !== undefined && growCode(old, token)) continue;
      const nodes = [...render(token).childNodes];
      this.put(at, { raw: token.raw, links: tokens.linkNames, nodes });
    }
    for (const extra of this.blocks.splice(this.settled + blocks.length)) extra.nodes.forEach((node) => node.remove());
  }

  put(at, block) {
    const old = this.blocks[at];
    const next = this.blocks.slice(at + 1).find(({ nodes }) => nodes.length)?.nodes[0] ?? null;
    if (old !== undefined) {
      old.nodes.forEach((node) => node.remove());
      for (const node of block.nodes) this.element.insertBefore(node, next);
    } else {
      this.element.append(...block.nodes);
    }
    this.blocks[at] = block;
  }

  /** All but the last two blocks are done: a list or a quotation may still take in what follows a blank line. */
  settle(tokens) {
    const marks = [];
    let at = 0;
    for (const token of tokens) {
      if (token.type !== "space" && token.type !== "def") marks.push(at);
      at += token.raw.length;
    }
    if (marks.length <= 2) return;
    this.settled += marks.length - 2;
    this.offset += marks.at(-2);
    this.links = tokens.links;
  }
}

function lex(text, links) {
  const lexer = new parser.Lexer(parser.options);
  Object.assign(lexer.tokens.links, links);
  const tokens = lexer.lex(text);
  tokens.linkNames = Object.keys(tokens.links).join("\n");
  return tokens;
}

function render(token) {
  const fragment = parser.sanitize(new parser.Parser(parser.options).parse([token]));
  fragment.querySelectorAll("a").forEach(finishLink);
  fragment.querySelectorAll("pre").forEach(finishCode);
  fragment.querySelectorAll("table").forEach(finishTable);
  return fragment;
}

/** While a code block grows, letters are added to the one text node instead of making it anew. */
function growCode(old, token) {
  const figure = old.nodes[0];
  if (token.type !== "code" || !figure?.matches?.(".code") || !token.raw.startsWith(old.raw)) return false;
  const code = figure.querySelector("code");
  const shown = code.firstChild;
  if (code.childElementCount || !(shown instanceof Text) || !token.text.startsWith(shown.data)) return false;
  shown.appendData(token.text.slice(shown.data.length));
  old.raw = token.raw;
  return true;
}

function finishLink(link) {
  const address = safeAddress(link.getAttribute("href") ?? "");
  if (address === null) {
    link.replaceWith(...link.childNodes);
    return;
  }
  link.target = "_blank";
  link.rel = "noopener noreferrer nofollow ugc";
  const words = link.textContent.trim();
  if (words === address.href || `${words}/` === address.href) return; // it says itself where it leads
  const host = document.createElement("span");
  host.className = "host";
  host.dir = "ltr"; // signs that turn the writing round must not turn the host round
  host.textContent = ` (${address.protocol === "mailto:" ? address.pathname : address.host})`;
  link.append(host);
}

function finishTable(table) {
  const frame = document.createElement("div");
  frame.className = "table";
  frame.tabIndex = 0; // it scrolls sideways, by keyboard too
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-label", gettext("Table"));
  table.replaceWith(frame);
  frame.append(table);
}

function finishCode(pre) {
  const code = pre.firstElementChild;
  if (code === null) return;
  const language = /language-([\w+#.-]+)/.exec(code.className)?.[1] ?? "";
  code.removeAttribute("class");
  const figure = document.createElement("div");
  figure.className = "code";
  const head = document.createElement("div");
  head.className = "code-head";
  const name = document.createElement("span");
  name.textContent = language || "text";
  const copy = document.createElement("button");
  copy.type = "button";
  copy.className = "button button-small button-quiet";
  copy.dataset.copy = "code";
  const words = document.createElement("span");
  words.textContent = gettext("Copy code");
  copy.append(words);
  head.append(name, copy);
  pre.tabIndex = 0;
  pre.setAttribute("role", "region");
  pre.setAttribute("aria-label", language ? format(gettext("Code, %(language)s"), { language }) : gettext("Code"));
  figure.dataset.language = language;
  pre.replaceWith(figure);
  figure.append(head, pre);
}

/** Colour the code blocks of an answer that is complete. */
export async function highlight(element) {
  const figures = [...element.querySelectorAll(".code[data-language]:not([data-coloured])")];
  const wanted = figures.filter(({ dataset }) => dataset.language);
  if (!wanted.length || parser === null) return;
  highlighter ??= import("../vendor/highlight.js").then((module) => module.default, () => null);
  const colours = await highlighter;
  for (const figure of wanted) {
    const code = figure.querySelector("code");
    const language = figure.dataset.language.toLowerCase();
    if (!colours?.getLanguage(language) || code.textContent.length > HIGHLIGHT_UP_TO) continue;
    figure.dataset.coloured = "";
    const { value } = colours.highlight(code.textContent, { language, ignoreIllegals: true });
    code.replaceChildren(parser.sanitizeColours(value));
  }
}
