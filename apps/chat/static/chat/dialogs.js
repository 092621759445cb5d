// Questions that stand in front of the page: rename, delete, the sheet of shortcuts, and the menu of a conversation.

const byId = (id) => document.getElementById(id);

/** Opens a dialog; resolves with true if it was answered with its main button. Focus goes back by itself. */
function ask(dialog) {
  return new Promise((resolve) => {
    dialog.returnValue = "cancel";
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "go"), { once: true });
    dialog.showModal();
  });
}

/** The new name, or null. */
export async function askForName(now) {
  const field = byId("rename-text");
  field.value = now;
  const answer = ask(byId("rename-dialog"));
  field.select();
  return (await answer) ? field.value.trim() || null : null;
}

export const askToDelete = () => ask(byId("delete-dialog"));
export const showShortcuts = () => ask(byId("shortcuts-dialog"));
export const isDialogOpen = () => document.querySelector("dialog[open], [popover]:popover-open") !== null;

/** Opens the menu beside `button`; `chosen(action)` is told what was picked. */
export function openMenu(button, chosen) {
  const menu = byId("menu");
  const items = [...menu.querySelectorAll("[role=menuitem]")];
  const controller = new AbortController();
  const { signal } = controller;
  const close = () => {
    menu.hidePopover();
    button.focus();
  };
  menu.addEventListener("toggle", ({ newState }) => { if (newState === "closed") controller.abort(); }, { signal });
  menu.addEventListener("click", ({ target }) => {
    const action = target.closest("[data-action]")?.dataset.action;
    if (!action) return;
    close();
    chosen(action);
  }, { signal });
  menu.addEventListener("keydown", (event) => {
    const at = items.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) items[(at + step + items.length) % items.length].focus();
    else if (event.key === "Tab" || event.key === "Escape") close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }, { signal });
  menu.showPopover();
  put(menu, button.getBoundingClientRect());
  items[0].focus();
}

/** Under the button, or above it where there is no room, and never off the screen. */
function put(menu, anchor) {
  const { width, height } = menu.getBoundingClientRect();
  const below = anchor.bottom + 4;
  const top = below + height < innerHeight ? below : Math.max(8, anchor.top - height - 4);
  menu.style.top = `${top}px`;
  menu.style.left = `${Math.max(8, Math.min(anchor.left, innerWidth - width - 8))}px`;
}
