// Small words for making elements. Text is always text: nothing here takes HTML.

import { gettext } from "./words.js";

/** An element with properties (`class`, `on…` handlers, `data-…`/`aria-…` and other attributes) and children. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name === "className" ? "class" : name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** An icon drawn with strokes in the text's own colour; it says nothing to a screen reader. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" })) {
    svg.setAttribute(key, value);
  }
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

const ICONS = {
  more: "M5 12h.01M12 12h.01M19 12h.01",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  before: "M15 6l-6 6 6 6",
  after: "M9 6l6 6-6 6",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  clip: "M20 11l-8.5 8.5a5 5 0 0 1-7-7L13 4a3.3 3.3 0 0 1 4.7 4.7l-8.4 8.4a1.7 1.7 0 0 1-2.4-2.4L14.5 7",
  close: "M6 6l12 12M18 6L6 18",
  done: "M5 12.5l4.5 4.5L19 7.5",
  retry: "M4 12a8 8 0 1 0 2.6-5.9M4 4v4.5h4.5",
  tool: "M14.5 6.5a4 4 0 0 0-5 5L4 17l3 3 5.5-5.5a4 4 0 0 0 5-5L15 12l-3-3z",
  thought: "M9 18h6M10 21h4M12 3a6 6 0 0 0-3.5 10.9c.6.5 1 1.2 1 2.1h5c0-.9.4-1.6 1-2.1A6 6 0 0 0 12 3z",
  agent: "M12 4v3M6 9h12v9H6zM9.5 13h.01M14.5 13h.01M3 12v3M21 12v3",
  warning: "M12 4l9 16H3zM12 10v4M12 17h.01",
};

/** Set text only if it differs, so that a live region is not read out twice. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Tell a screen reader something, politely. The same words twice in a row are said twice. */
export function announce(words) {
  const region = document.getElementById("announcements");
  region.textContent = "";
  requestAnimationFrame(() => { region.textContent = words; });
}

/** A message that goes away by itself, or with its button; `action` is {label, run}. */
export function toast(words, action = null) {
  const place = document.getElementById("toasts");
  const item = h("div", { class: "toast", role: "alert" }, h("p", {}, words));
  const close = () => item.remove();
  if (action) item.append(h("button", { class: "button button-small", type: "button", onclick: () => { close(); action.run(); } }, action.label));
  item.append(h("button", { class: "button button-small button-quiet", type: "button", onclick: close }, gettext("Dismiss")));
  while (place.children.length >= 3) place.firstElementChild.remove();
  place.append(item);
  if (!action) setTimeout(close, 12_000);
}

/** Have the browser save what this address answers. */
export function download(address) {
  h("a", { href: address, download: true }).click();
}

/** Put text on the clipboard, and say so on the button that asked. */
export async function copyText(text, button) {
  const words = button.querySelector("span");
  const before = words.textContent;
  try {
    await navigator.clipboard.writeText(text);
    words.textContent = gettext("Copied");
  } catch {
    words.textContent = gettext("Not allowed");
  }
  setTimeout(() => { words.textContent = before; }, 1600);
}
