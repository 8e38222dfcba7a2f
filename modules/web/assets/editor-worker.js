// Changes masks away from the page's thread, so that a large one does not stop it.

import { changed } from "./editor-mask.js";

addEventListener("message", ({ data: { kind, alpha, width, height, amount } }) => {
  const result = changed(kind, alpha, width, height, amount);
  postMessage(result, [result.buffer]);
});
