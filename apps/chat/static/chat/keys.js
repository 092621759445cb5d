// Which key means what. Single letters do nothing: speech input and slips would set them off.

import { isDialogOpen } from "./dialogs.js";

/** Call the one of `actions` that a key asks for. `isAnswering()`: there is something to stop. */
export function listenForKeys(actions, isAnswering) {
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || isDialogOpen()) return;
    const action = actionOf(event, isAnswering());
    if (action === null) return;
    event.preventDefault();
    actions[action]();
  });
}

/** The name of the action that a key press asks for, or null. `isAnswering`: there is something to stop. */
function actionOf({ key, target, ctrlKey, metaKey, shiftKey }, isAnswering) {
  const command = ctrlKey || metaKey;
  if (command && shiftKey && key.toLowerCase() === "o") return "startNew";
  if (command && key === "k") return "search";
  if (command && key === "/") return "showKeys";
  if (key === "?" && !target.matches?.("input, textarea, select")) return "showKeys";
  if (key === "Escape" && shiftKey) return "write";
  if (key === "Escape" && isAnswering) return "stop";
  return null;
}
