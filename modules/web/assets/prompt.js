// Prompt boxes: attention weights by Ctrl+Up and Ctrl+Down, moving by Alt+arrows, token counts, dropped pictures.

import { attempt, call, sendToForm, toast } from "./api.js";
import { openGenerator, session } from "./results.js";

const STEP = 0.1;
const TAG_STEP = 0.05;
const DELIMITERS = " \t\r\n.,\\/!?%^*;:{}=`~()[]";
const BOXES = '[id$="2img_prompt"], [id$="2img_neg_prompt"]';

export function promptBox(target) {
  const holder = target.closest?.(BOXES);
  return holder && target.tagName === "TEXTAREA" ? target : null;
}

// Returns [start, end] of what a weight applies to: the selection, the brackets around the cursor, or its word.
export function focusedRange(value, start, end) {
  if (start !== end) return [start, end];
  for (const [open, close] of ["()", "<>"]) {
    const inside = enclosed(value, start, open, close);
    if (inside) return inside;
  }
  while (start > 0 && !DELIMITERS.includes(value[start - 1])) start -= 1;
  while (end < value.length && !DELIMITERS.includes(value[end])) end += 1;
  return [start, end];
}

function enclosed(value, at, open, close) {
  const before = value.lastIndexOf(open, at - 1);
  const after = value.indexOf(close, at);
  if (before < 0 || after < 0 || value.slice(before + 1, at).includes(close) || value.slice(at, after).includes(open)) return null;
  const colon = value.slice(before + 1, after).lastIndexOf(":");
  if (colon < 0 || Number.isNaN(Number.parseFloat(value.slice(before + 2 + colon, after)))) return null;
  return at > before + 1 + colon ? null : [before + 1, before + 1 + colon];
}

// Returns the text and selection after the weight of a range was changed by `by` steps; a weight of 1 needs no brackets.
export function reweighted(value, start, end, by) {
  [start, end] = focusedRange(value, start, end);
  if (start === end) return { value, start, end };
  const tag = value[start - 1] === "<";
  const weight = /^:(-?[\d.]+)([)>])/.exec(value.slice(end));
  const bracketed = weight && "(<".includes(value[start - 1]);
  const number = bracketed ? Number.parseFloat(weight[1]) : 1;
  const next = Number((number + by * (tag ? TAG_STEP : STEP)).toPrecision(12));
  const before = value.slice(0, start - (bracketed ? 1 : 0));
  const after = value.slice(end + (bracketed ? weight[0].length : 0));
  const middle = value.slice(start, end);
  if (next === 1 && !tag) return { value: before + middle + after, start: before.length, end: before.length + middle.length };
  const [open, close] = tag ? "<>" : "()";
  return { value: `${before}${open}${middle}:${next}${close}${after}`, start: before.length + 1, end: before.length + 1 + middle.length };
}

// Returns the text and selection after the comma-separated part at the cursor traded places with its neighbour.
export function moved(value, cursor, by) {
  const parts = value.split(",");
  let index = 0;
  for (let length = parts[0].length; cursor > length && index < parts.length - 1; length += parts[index].length + 1) index += 1;
  const other = index + by;
  if (other < 0 || other >= parts.length) return { value, start: cursor, end: cursor };
  const trimmed = parts.map((part) => part.trim());
  [trimmed[index], trimmed[other]] = [trimmed[other], trimmed[index]];
  const start = trimmed.slice(0, other).reduce((sum, part) => sum + part.length + 2, 0);
  return { value: trimmed.join(", "), start, end: start + trimmed[other].length };
}

export function editPrompt(event) {
  const box = promptBox(event.target);
  const by = { ArrowUp: 1, ArrowDown: -1, ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!box || !by) return false;
  const vertical = event.key === "ArrowUp" || event.key === "ArrowDown";
  const change = (event.ctrlKey || event.metaKey) && vertical ? reweighted(box.value, box.selectionStart, box.selectionEnd, by)
    : event.altKey && !vertical ? moved(box.value, box.selectionStart, by) : null;
  if (!change) return false;
  event.preventDefault();
  box.value = change.value;
  box.setSelectionRange(change.start, change.end);
  box.dispatchEvent(new Event("input", { bubbles: true }));
  return true;
}

let timer = 0;

export function count(tab, prompt, negative) {
  const counters = { [`${tab}_token_counter`]: prompt || "", [`${tab}_negative_token_counter`]: negative || "" };
  clearTimeout(timer);
  timer = setTimeout(async () => {
    const off = session.settings.tokens === false;
    for (const id of Object.keys(counters)) document.getElementById(id)?.classList.toggle("off", off);
    if (off) return;
    const answer = await call("tokens", counters).catch(() => null);
    for (const [id, [tokens, room]] of Object.entries(answer || {})) {
      const counter = document.querySelector(`#${id} .token-counter`);
      if (counter) counter.textContent = `${tokens}/${room}`;
    }
  }, 250);
}

export async function droppedPicture(event) {
  const file = [...(event.dataTransfer?.files || [])].find((one) => one.type.startsWith("image/"));
  if (!file || !promptBox(event.target)) return;
  event.preventDefault();
  event.stopPropagation();
  const answer = await attempt(async () => call("pnginfo", await file.arrayBuffer(), true));
  if (!answer) return;
  if (!answer.infotext) return toast("This picture carries no generation parameters.", "", "note");
  await sendToForm(openGenerator(), answer.infotext);
}
