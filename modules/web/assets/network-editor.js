// The editor of what is written beside a network, and of its cover.

import { address, attempt, call, fileSize, toast } from "./api.js";
import { inspectModel } from "./inspector.js";
import { session } from "./results.js";

const VERSIONS = { "": "As found", SD1: "SD1", SD2: "SD2", SDXL: "SDXL", SD3: "SD3" };
const PROMPTED = ["lora", "hypernetwork"];

export async function editNetwork(network, changed) {
  const details = await attempt(() => call(`networks/${network.id}`));
  if (!details) return;
  const dialog = built(details);
  fill(dialog, details);
  dialog.addEventListener("click", async (event) => {
    const action = event.target.closest("[data-do]")?.dataset.do;
    if (action === "save" && await save(dialog, details, changed)) dialog.close();
    if (action === "cover") setCover(dialog, details, changed);
    if (action === "inspect") { dialog.close(); inspectModel(details.kind, details.file); }
    const tag = event.target.closest("[data-tag]")?.dataset.tag;
    if (tag) toggleWord(field(dialog, "activation"), tag);
    if (tag || event.target === dialog) markTags(dialog);
  });
  dialog.addEventListener("input", () => markTags(dialog));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  markTags(dialog);
  dialog.showModal();
}

function built(details) {
  const dialog = document.createElement("dialog");
  dialog.className = "network-dialog";
  dialog.setAttribute("aria-labelledby", "network_title");
  const prompted = PROMPTED.includes(details.kind);
  dialog.innerHTML = `
    <form method="dialog">
      <div class="network-head"><div class="network-cover" hidden><img alt="Cover"></div>
        <div><h2 id="network_title"></h2><p class="network-file"></p><p class="network-problem" role="alert" hidden></p>
          <button type="button" class="button" data-do="cover">Use the shown picture as cover</button>
          <button type="button" class="button" data-do="inspect">Inspect</button></div></div>
      <label>Description <textarea name="description" rows="3"></textarea></label>
      ${prompted ? `<div class="network-row"><label class="wide">Activation text <textarea name="activation" rows="2" placeholder="Goes into the prompt with the tag"></textarea></label>
        <label>Preferred weight <input name="weight" type="number" step="0.05" min="-100" max="100"></label></div>
      <div class="network-tags" hidden><span class="network-label">Words it was trained with</span><div></div></div>
      <label>Negative text <textarea name="negative" rows="1" placeholder="Goes into the negative prompt"></textarea></label>` : ""}
      <label>Notes <textarea name="notes" rows="2"></textarea></label>
      <label>Base version <select name="version"></select></label>
      <dl class="items"></dl>
      <div class="bar-row"><span class="spacer"></span><button type="submit" class="button" value="close">Cancel</button>
        <button type="button" class="button primary" data-do="save">Save</button></div>
    </form>`;
  dialog.addEventListener("keydown", (event) => { if (event.key === "Enter" && event.target.tagName === "INPUT") event.preventDefault(); });
  return dialog;
}

function field(dialog, name) {
  return dialog.querySelector(`[name="${name}"]`);
}

function fill(dialog, details) {
  dialog.querySelector("h2").textContent = details.title || details.name;
  dialog.querySelector(".network-file").textContent = `${details.file} · ${fileSize(details.size)}`;
  const problem = dialog.querySelector(".network-problem");
  problem.hidden = !details.problem;
  problem.textContent = `${details.problem} Nothing can be saved beside this network until it is repaired or moved away.`;
  dialog.querySelector('[data-do="save"]').disabled = Boolean(details.problem);
  const version = field(dialog, "version");
  for (const [value, label] of Object.entries({ ...VERSIONS, [details.own.version]: details.own.version || VERSIONS[""] })) version.append(new Option(value || !details.found.version ? label : `${label}: ${details.found.version}`, value));
  for (const input of dialog.querySelectorAll("[name]")) {
    input.value = details.own[input.name] || "";
    if (details.found[input.name] && input.name !== "version") input.placeholder = details.found[input.name];
  }
  showCover(dialog, details.thumbnail);
  showTags(dialog, details.tags);
  const facts = dialog.querySelector(".items");
  for (const [label, value] of Object.entries(details.facts)) facts.append(item("dt", label), item("dd", value));
}

function item(name, words) {
  return Object.assign(document.createElement(name), { textContent: words });
}

function showCover(dialog, thumbnail) {
  const cover = dialog.querySelector(".network-cover");
  cover.hidden = !thumbnail;
  if (thumbnail) cover.firstChild.src = address(thumbnail);
  const shown = session.panel?.current();
  dialog.querySelector('[data-do="cover"]').disabled = !shown;
}

function showTags(dialog, tags) {
  const holder = dialog.querySelector(".network-tags");
  if (!holder || !tags.length) return;
  holder.hidden = false;
  for (const [tag, count] of tags) {
    const chip = Object.assign(item("button", tag), { type: "button", className: "chip" });
    chip.dataset.tag = tag;
    chip.append(item("small", count));
    holder.lastElementChild.append(chip);
  }
}

function words(input) {
  return input.value.split(",").map((word) => word.trim()).filter(Boolean);
}

function toggleWord(input, word) {
  const present = words(input);
  input.value = (present.includes(word) ? present.filter((one) => one !== word) : [...present, word]).join(", ");
}

function markTags(dialog) {
  const input = field(dialog, "activation");
  if (!input) return;
  const present = words(input);
  for (const chip of dialog.querySelectorAll("[data-tag]")) chip.setAttribute("aria-pressed", present.includes(chip.dataset.tag));
}

// Sends what differs from what is written there, so that another's change of another field stays.
async function save(dialog, details, changed) {
  const values = [...dialog.querySelectorAll("[name]")].map((input) => [input.name, input.name === "weight" ? Number(input.value) || 0 : input.value]);
  const changes = Object.fromEntries(values.filter(([name, value]) => value !== unbroken(details.own[name])));
  if (!Object.keys(changes).length) return true;
  const answer = await attempt(() => call(`networks/${details.id}`, changes));
  if (!answer) return false;
  changed(answer);
  toast(`Saved: ${details.name}.`, "", "note");
  return true;
}

// A text box has one kind of line end.
function unbroken(value) {
  return typeof value === "string" ? value.replaceAll(/\r\n?/g, "\n") : value;
}

async function setCover(dialog, details, changed) {
  const [, job, index] = /jobs\/([^/]+)\/pictures\/(\d+)/.exec(session.panel?.current()?.url || "") || [];
  if (!job) return;
  const answer = await attempt(() => call(`networks/${details.id}/cover`, { job, index: Number(index) }));
  if (!answer) return;
  showCover(dialog, answer.thumbnail);
  changed(answer);
}
