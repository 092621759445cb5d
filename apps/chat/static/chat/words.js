// The page's words in the reader's language: Django's own catalog, which the page loads before its modules. Without it the
// English words of the source are shown.

const catalog = globalThis.django ?? {};

export const gettext = catalog.gettext ?? ((text) => text);
export const ngettext = catalog.ngettext ?? ((one, many, count) => (count === 1 ? one : many));

/** `format("%(count)s files", {count: 2})`: names, since other languages order their words otherwise. */
export function format(text, values) {
  return text.replace(/%\((\w+)\)s/g, (whole, name) => (name in values ? values[name] : whole));
}

/** A number as the reader's language writes it. */
export function number(value) {
  return new Intl.NumberFormat(document.documentElement.lang || "en").format(value);
}

/** A moment (ISO 8601) as the reader's language and clock write it. */
export function moment(text) {
  return new Intl.DateTimeFormat(document.documentElement.lang || "en", { dateStyle: "medium", timeStyle: "short" }).format(new Date(text));
}
