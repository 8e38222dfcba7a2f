// The Inspector: what a model file is and holds, from its header; hashes and values when they are asked for.

import { attempt, call, fileSize, openTab, text } from "./api.js";
import "./difference.js";
import { cancel, endHtml, ended, failureHtml, follow, showProgress } from "./follow.js";

const PAGE = 100;
const PAUSE = 200; // milliseconds
const SHOWN_TAGS = 60;
const NOTHING = '<p class="hint">Choose a model to see what it is, what it is made of and what its file says of itself.</p>';
const OPENED = "darkroom:inspect";

// What is looked at; the element is not in the page while another tab is open.
const shown = { kind: "checkpoint", name: "" };

// Opens the Inspector with a model in it.
export function inspectModel(kind, name) {
  Object.assign(shown, { kind, name });
  openTab("Inspector");
  document.dispatchEvent(new CustomEvent(OPENED));
}

class Inspector extends HTMLElement {
  connectedCallback() {
    this.opened = () => this.restore();
    document.addEventListener(OPENED, this.opened);
    this.innerHTML = `
      <div class="inspector-choice"><label>Kind <select id="inspector_kind"></select></label>
        <label class="wide">Model <input id="inspector_name" list="inspector_names" autocomplete="off" placeholder="Choose or type a name" maxlength="300"></label>
        <datalist id="inspector_names"></datalist></div>
      <div data-part="found">${NOTHING}</div>`;
    this.kind = this.querySelector("#inspector_kind");
    this.name = this.querySelector("#inspector_name");
    this.kind.addEventListener("change", () => { Object.assign(shown, { kind: this.kind.value, name: "" }); this.restore(); });
    this.name.addEventListener("input", () => this.soon(() => this.suggest()));
    this.name.addEventListener("change", () => { shown.name = this.name.value; this.look(); });
    this.addEventListener("click", (event) => this.clicked(event));
    this.start();
  }

  disconnectedCallback() {
    document.removeEventListener(OPENED, this.opened);
    clearTimeout(this.timer);
    this.stop?.();
  }

  async start() {
    const kinds = await attempt(() => call("inspections/kinds"));
    if (!kinds || !this.isConnected) return;
    this.kind.replaceChildren(...kinds.map((one) => new Option(one.label, one.kind)));
    this.restore();
  }

  restore() {
    if (!this.kind.options.length) return;
    this.kind.value = shown.kind;
    this.name.value = shown.name;
    this.suggest();
    this.look();
  }

  soon(action) {
    clearTimeout(this.timer);
    this.timer = setTimeout(action, PAUSE);
  }

  async suggest() {
    const answer = await attempt(() => call(`inspections/names?${new URLSearchParams({ kind: shown.kind, text: this.name.value })}`));
    if (!answer) return;
    this.querySelector("datalist").replaceChildren(...answer.names.map((name) => new Option(name)));
    this.name.placeholder = answer.count || this.name.value ? "Choose or type a name" : "There are none";
  }

  get query() {
    return new URLSearchParams({ kind: shown.kind, name: shown.name });
  }

  async look() {
    this.stop?.();
    const place = this.querySelector('[data-part="found"]');
    const turn = this.turn = (this.turn || 0) + 1;
    if (!shown.name) { place.innerHTML = NOTHING; return; }
    let found = null;
    try {
      found = await call(`inspections?${this.query}`);
    } catch (failure) {
      if (turn === this.turn) place.innerHTML = failureHtml(failure);
      return;
    }
    if (turn !== this.turn || !this.isConnected) return;
    shown.name = found.name;
    this.name.value = found.name;
    place.innerHTML = foundHtml(found);
    this.offset = 0;
    place.querySelector('[data-part="search"]').addEventListener("input", () => this.soon(() => { this.offset = 0; this.tensors(); }));
    this.tensors();
  }

  async tensors() {
    const search = this.querySelector('[data-part="search"]').value;
    const answer = await attempt(() => call(`inspections/tensors?${this.query}&limit=${PAGE}&offset=${this.offset}&text=${encodeURIComponent(search)}`));
    const body = this.querySelector('[data-part="tensors"]');
    if (!answer || !body || this.querySelector('[data-part="search"]').value !== search) return;
    body.innerHTML = answer.tensors.map((one) => `<tr><td>${text(one.name)}</td><td>${text(one.dtype)}</td><td>${one.shape.join(" × ") || "scalar"}</td><td>${fileSize(one.bytes)}</td></tr>`).join("");
    const last = Math.min(answer.count, this.offset + PAGE);
    this.querySelector('[data-part="count"]').textContent = answer.count ? `${(this.offset + 1).toLocaleString()} to ${last.toLocaleString()} of ${answer.count.toLocaleString()}` : "None";
    this.querySelector('[data-do="before"]').disabled = !this.offset;
    this.querySelector('[data-do="after"]').disabled = last >= answer.count;
  }

  clicked(event) {
    const action = event.target.closest("[data-do]")?.dataset.do;
    if (action === "before" || action === "after") {
      this.offset = Math.max(0, this.offset + (action === "after" ? PAGE : -PAGE));
      this.tensors();
    }
    if (action === "hashes" || action === "values") this.check(action);
    if (action === "cancel") cancel(this.job);
  }

  async check(what) {
    const asked = { ...shown, hashes: what === "hashes", values: what === "values" };
    const job = await attempt(() => call("inspections/checks", asked));
    if (!job) return;
    this.stop?.();
    this.job = job.id;
    const place = this.querySelector('[data-part="checked"]');
    this.stop = follow(job.id, (one) => {
      if (!place.isConnected) return;
      if (ended(one)) place.innerHTML = endHtml(one) || valuesHtml(one);
      else showProgress(place, one);
      if (one.state === "finished" && asked.hashes) this.hashes();
    });
  }

  async hashes() {
    const found = await attempt(() => call(`inspections?${this.query}`));
    const place = this.querySelector('[data-part="hashes"]');
    if (found && place) place.innerHTML = hashesHtml(found.hashes);
  }
}

function foundHtml(found) {
  const facts = { ...found.details, Format: found.layout.replace("_", " "), Size: fileSize(found.size || found.bytes), Numbers: found.elements.toLocaleString() };
  const ranked = found.parts.some((part) => Object.keys(part.ranks).length);
  return `<div class="inspector-found"><div>
    <section><h2>${text(found.what)}</h2>${found.problem ? `<p class="damaged">${text(found.problem)}</p>` : ""}${items(facts)}</section>
    <section><h3>Hashes</h3><div data-part="hashes">${hashesHtml(found.hashes)}</div>
      <div class="bar-row"><button type="button" class="button" data-do="hashes">Compute all hashes</button>
        <button type="button" class="button" data-do="values">Check for NaN and infinity</button></div><div data-part="checked" aria-live="polite"></div></section>
    ${Object.keys(found.metadata).length ? `<section><details><summary>Metadata (${Object.keys(found.metadata).length})</summary>${items(found.metadata)}</details></section>` : ""}</div><div>
    <section><h3>Parts</h3><div class="scroll"><table><thead><tr><th>Part</th><th>Tensors</th><th>Numbers</th><th>Size</th><th>Types</th>${ranked ? "<th>Ranks</th>" : ""}</tr></thead>
      <tbody>${found.parts.map((part) => partHtml(part, ranked)).join("")}</tbody></table></div></section>
    ${found.kind === "checkpoint" && !found.problem ? `<section><h3>Difference from another checkpoint</h3><darkroom-difference model="${text(found.name)}"></darkroom-difference></section>` : ""}
    ${found.recipe ? `<section><h3>Recipe of the merge</h3>${items(told(found.recipe))}</section>` : ""}
    ${Object.keys(found.training).length || found.tags.length ? `<section><h3>Training</h3>${items(found.training)}${tagsHtml(found.tags)}</section>` : ""}</div>
    <section class="tensors"><div class="bar-row"><h3>Tensors</h3><input type="search" data-part="search" placeholder="Search names" aria-label="Search names of tensors" maxlength="300">
      <span class="count" data-part="count" aria-live="polite"></span>
      <button type="button" class="button" data-do="before" aria-label="Earlier tensors">‹</button><button type="button" class="button" data-do="after" aria-label="Further tensors">›</button></div>
      <div class="scroll"><table><thead><tr><th>Name</th><th>Type</th><th>Shape</th><th>Size</th></tr></thead><tbody data-part="tensors"></tbody></table></div></section></div>`;
}

function partHtml(part, ranked) {
  const counted = (counts, words) => Object.entries(counts).map(([name, count]) => words(name, count)).join(", ");
  return `<tr><td>${text(part.name)}</td><td>${part.tensors.toLocaleString()}</td><td>${part.elements.toLocaleString()}</td><td>${fileSize(part.bytes)}</td>
    <td>${text(counted(part.dtypes, (name, count) => (Object.keys(part.dtypes).length > 1 ? `${name} (${count})` : name)))}</td>
    ${ranked ? `<td>${text(counted(part.ranks, inModules))}</td>` : ""}</tr>`;
}

function inModules(value, count) {
  return `${value} (${count} module${count === 1 ? "" : "s"})`;
}

function hashesHtml(hashes) {
  return items(Object.fromEntries(Object.entries(hashes).map(([name, value]) => [name, value || "not computed yet"])));
}

function tagsHtml(tags) {
  if (!tags.length) return "";
  const list = (some) => `<div class="inspector-tags">${some.map(([tag, count]) => `<span>${text(tag)} <i>${count}</i></span>`).join("")}</div>`;
  return `<h4>Words of its captions</h4>${list(tags.slice(0, SHOWN_TAGS))}${tags.length > SHOWN_TAGS ? `<details><summary>${tags.length - SHOWN_TAGS} more</summary>${list(tags.slice(SHOWN_TAGS))}</details>` : ""}`;
}

function valuesHtml(job) {
  const found = job.result.values;
  if (!found?.tensors) return "";
  const names = ({ count, names: some }) => `${count}${count ? `: ${some.slice(0, 5).join(", ")}${count > 5 ? ", …" : ""}` : ""}`;
  const alphas = Object.entries(found.alphas).map(([part, counts]) => [`Alpha of ${part}`, Object.entries(counts).map(([alpha, count]) => inModules(alpha, count)).join(", ")]);
  const bad = found.nan.count + found.infinite.count;
  return `<p class="${bad ? "damaged" : "good"}">${bad ? "Damaged: some values are no numbers." : "All values are numbers."}</p>
    ${items({ "Tensors with NaN": names(found.nan), "With infinity": names(found.infinite), "Of zeros alone": names(found.zero), "Largest value": Number(found.largest.toPrecision(6)), ...Object.fromEntries(alphas) })}`;
}

function told(recipe) {
  return Object.fromEntries(Object.entries(recipe).filter(([, value]) => value !== "" && value !== null));
}

function items(values) {
  return `<dl class="items">${Object.entries(values).map(([name, value]) => `<dt>${text(name)}</dt><dd>${text(value)}</dd>`).join("")}</dl>`;
}

customElements.define("darkroom-inspector", Inspector);
