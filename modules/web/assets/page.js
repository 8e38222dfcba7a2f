// The page's entry: keyboard, buttons that belong to no Gradio event, and what Gradio's events call.

import { address, attempt, call, complain, keptPicture, pasted, toast } from "./api.js";
import "./batch.js";
import "./editor.js";
import "./extensions.js";
import "./extras.js";
import "./gallery.js";
import "./inspector.js";
import { merging } from "./merge.js";
import { previewing } from "./merge-preview.js";
import "./networks.js";
import "./pnginfo.js";
import { count, droppedPicture, editPrompt } from "./prompt.js";
import "./queue.js";
import { generate, interrupt, openGenerator, session, skip, submitted } from "./results.js";
import { scaled } from "./scaled.js";
import { editStyles } from "./styles.js";
import { viewing } from "./viewer.js";

const TITLES = '.tool, [id$="_interrupt"], [id$="_skip"]';
// Buttons of every tab that makes pictures, by the end of their ids.
const BUTTONS = { interrupt, skip, styles_edit_button: () => editStyles(openGenerator()), generate: () => attempt(() => call("session")) };

const PATIENCE = 20_000; // milliseconds

window.darkroom = {
  generate,
  merging,
  previewing,
  submitted,
  count,
  refresh: () => { session.panel?.fail(null); session.panel?.refresh(); otherModel(); },
  infotext: () => session.panel?.current()?.infotext || "",
  shown,
  restoring: (tab) => restoring(tab, 1),
  restored: (tab) => requestAnimationFrame(() => requestAnimationFrame(() => restoring(tab, -1))),
  pasted,
  scaled,
  seed,
  answered,
};

// The seed, or the variation seed, of the picture that is shown; `present` stays where there is none.
function seed(kind, present) {
  const picture = session.panel?.current();
  if (!picture) return present;
  if (kind === "seed") return picture.seed;
  return /Variation seed: (\d+)/.exec(picture.infotext)?.[1] ?? present;
}

// A tab can be used once all that was asked of its stored form is shown. Gradio shows an answer with the next frame.
const asked = {};

function restoring(tab, change) {
  const state = asked[tab] ||= { count: 0, late: 0 };
  state.count = Math.max(0, state.count + change);
  document.body.classList.toggle(`restored-${tab}`, !state.count);
  clearTimeout(state.late);
  // An answer that never comes shall not lock anybody out.
  if (state.count) state.late = setTimeout(() => { state.count = 1; restoring(tab, -1); }, PATIENCE);
}

// The picture that is shown, stored, and its infotext, as JSON.
async function shown() {
  const picture = session.panel?.current();
  const stored = picture && await attempt(async () => keptPicture(address(picture.url)));
  return JSON.stringify({ infotext: picture?.infotext || "", id: stored?.id || "" });
}

function answered(answer) {
  if (answer.message) complain(answer);
  if (answer.saved) toast(answer.saved.length ? `Saved: ${answer.saved.join(", ")}.` : "Nothing was changed.", "", "note");
  session.panel?.refresh();
  otherModel();
}

function otherModel() {
  document.dispatchEvent(new CustomEvent("darkroom:model"));
}

function press(id) {
  const button = document.getElementById(id);
  if (!button) return false;
  button.click();
  return true;
}

document.addEventListener("keydown", (event) => {
  if (editPrompt(event)) return;
  const enter = event.key === "Enter";
  if (enter && (event.ctrlKey || event.metaKey) && press(`${openGenerator()}_generate`)) event.preventDefault();
  else if (enter && event.altKey) { event.preventDefault(); skip(); }
  else if (event.key === "Escape" && !viewing() && !document.querySelector("dialog[open]") && document.body.classList.contains("generating") && !openList()) interrupt();
}, true);

// Escape closes an open list of choices first, as everywhere.
function openList() {
  return document.querySelector('[role="listbox"]:not(.strip), [aria-expanded="true"][role="combobox"], input[aria-expanded="true"]');
}

document.addEventListener("click", (event) => {
  const id = event.target.closest("button")?.id;
  BUTTONS[/^(?:txt2img|img2img|extras)_(.+)$/.exec(id || "")?.[1]]?.();
  if (id === "theme_switch") switchTheme();
});

document.addEventListener("drop", droppedPicture, true);

// Whatever is typed, pasted, cut or undone in the form is stored on the server shortly after.
let keeping = 0;

function keep() {
  if (keeping) press(`${openGenerator()}_keep`);
  clearTimeout(keeping);
  keeping = 0;
}

document.addEventListener("input", (event) => {
  if (!event.target.closest('[id$="2img_toprow"], [id$="2img_body"], #extras_settings')) return;
  clearTimeout(keeping);
  keeping = setTimeout(keep, 100);
});

document.addEventListener("pointerdown", keep, true);

// The thumbnail of a picture that was deleted since.
document.addEventListener("error", (event) => {
  event.target.closest?.(".thumb, .strip button")?.setAttribute("hidden", "");
}, true);

function switchTheme() {
  const page = new URL(location.href);
  page.searchParams.set("__theme", document.body.classList.contains("dark") ? "light" : "dark");
  location.href = page.href;
}

document.addEventListener("input", (event) => {
  if (event.target.id !== "settings_search") return;
  const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const section of document.querySelectorAll(".settings-section")) {
    let any = false;
    for (const control of section.querySelectorAll('[id^="setting_"]')) {
      const text = `${control.id} ${control.textContent}`.toLowerCase();
      const found = words.every((word) => text.includes(word));
      control.closest(".settings-section > *, .form > *")?.classList.toggle("filtered-out", !found);
      any ||= found;
    }
    section.classList.toggle("filtered-out", !any);
  }
});

new MutationObserver(() => {
  for (const button of document.querySelectorAll(TITLES)) if (!button.title) button.title = button.textContent.trim();
}).observe(document.documentElement, { childList: true, subtree: true });
