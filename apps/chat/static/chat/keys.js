// Which key means what. Single letters do nothing: speech input and slips would set them off.

/** The name of the action that a key press asks for, or null. `isAnswering`: there is something to stop. */
export function actionOf({ key, target, ctrlKey, metaKey, shiftKey }, isAnswering) {
  const command = ctrlKey || metaKey;
  if (command && shiftKey && key.toLowerCase() === "o") return "startNew";
  if (command && key === "k") return "search";
  if (command && key === "/") return "showKeys";
  if (key === "?" && !target.matches?.("input, textarea, select")) return "showKeys";
  if (key === "Escape" && shiftKey) return "write";
  if (key === "Escape" && isAnswering) return "stop";
  return null;
}
