// The networks browser: cards of checkpoints, LoRAs, embeddings and hypernetworks; a click uses one, or no longer.

import { address, attempt, call, toast } from "./api.js";
import { editNetwork } from "./network-editor.js";
import { holds, sayable, toggled } from "./networks-prompt.js";

const KINDS = { checkpoint: "Checkpoints", lora: "Lora", embedding: "Textual Inversion", hypernetwork: "Hypernetworks" };
const PAGE = 60;
const MOST = 200;
const PAUSE = 700;
const CHOICES = "darkroom-networks";
const FAMILIES = { sd15: "SD 1.x", sd2: "SD 2.x", sdxl: "SDXL", x4_upscaler: "x4 upscaler", sd3: "SD 3", flux: "Flux", other: "Another model" };

// What each tab looks at; its element is not in the page while another tab is open.
const looks = {};

function lookOf(tab) {
  looks[tab] ||= { kind: "", text: "", folder: "", into: "prompt" };
  return looks[tab];
}

function choices() {
  try {
    return { sort: "name", descending: false, everything: false, ...JSON.parse(localStorage.getItem(CHOICES) || "{}") };
  } catch {
    return { sort: "name", descending: false, everything: false };
  }
}

class Networks extends HTMLElement {
  connectedCallback() {
    if (!this.firstChild) this.build();
    this.listeners = [["input", (event) => this.look.kind && event.target.closest(`#${this.tab}_toprow`) && this.markSoon()], ["focusin", (event) => this.focused(event)], ["darkroom:model", () => this.look.kind && this.show()]];
    for (const [name, listener] of this.listeners) document.addEventListener(name, listener);
    this.observer = new IntersectionObserver((entries) => { if (entries.some((one) => one.isIntersecting)) this.more(); }, { root: this.part("scroll"), rootMargin: "400px" });
    this.observer.observe(this.part("end"));
    if (this.look.kind) this.open(this.look.kind);
  }

  disconnectedCallback() {
    for (const [name, listener] of this.listeners) document.removeEventListener(name, listener);
    this.observer.disconnect();
    clearTimeout(this.timer);
    clearTimeout(this.watching);
    this.turn += 1;
    this.loading = 0;
  }

  get tab() {
    return this.getAttribute("tab");
  }

  get look() {
    return lookOf(this.tab);
  }

  part(name) {
    return this.querySelector(`[data-part="${name}"]`);
  }

  build() {
    const tab = this.tab;
    this.turn = 0;
    this.cards = [];
    this.innerHTML = `
      <div class="networks-tabs" role="tablist" aria-label="Settings and networks">
        <button type="button" role="tab" data-kind="" aria-selected="true">Generation</button>
        ${Object.entries(KINDS).map(([kind, label]) => `<button type="button" role="tab" data-kind="${kind}" aria-selected="false" tabindex="-1">${label}</button>`).join("")}</div>
      <div class="networks-panel" data-part="panel" hidden>
        <div class="networks-bar">
          <input type="search" id="${tab}_extra_search" data-part="search" placeholder="Search names, words, descriptions" aria-label="Search networks" maxlength="300">
          <select data-part="sort" aria-label="Sort by"><option value="name">Name</option><option value="path">Path</option><option value="date">Date</option></select>
          <button type="button" class="tool icon-order" data-do="turn">Descending</button>
          <button type="button" class="tool icon-refresh" id="${tab}_extra_refresh" data-do="refresh">Look for new files</button></div>
        <div class="networks-folders" data-part="folders" hidden></div>
        <div class="networks-facts"><span class="count" data-part="count" aria-live="polite"></span>
          <label data-part="other" hidden><input type="checkbox" data-part="everything"> Show those for other models</label></div>
        <div class="networks-scroll" data-part="scroll"><div class="networks-grid" data-part="grid"></div><div data-part="end" aria-hidden="true"></div></div></div>`;
    this.addEventListener("click", (event) => this.clicked(event));
    this.addEventListener("input", (event) => this.typed(event));
    this.addEventListener("keydown", (event) => this.pressed(event));
    this.addEventListener("error", (event) => event.target.classList?.contains("card-cover") && event.target.remove(), true);
    this.part("sort").addEventListener("change", (event) => this.choose({ sort: event.target.value }));
    this.part("everything").addEventListener("change", (event) => this.choose({ everything: event.target.checked }));
    this.showChoices();
  }

  // Opens the cards of a kind, or with an empty one the settings that they stand in for.
  open(kind) {
    if (kind !== this.look.kind) Object.assign(this.look, { kind, text: "", folder: "" });
    this.toggleAttribute("open", Boolean(kind));
    this.part("panel").hidden = !kind;
    for (const tab of this.querySelectorAll('[role="tab"]')) {
      tab.setAttribute("aria-selected", tab.dataset.kind === kind);
      tab.tabIndex = tab.dataset.kind === kind ? 0 : -1;
    }
    if (!kind) return;
    this.part("search").value = this.look.text;
    this.clear();
    this.show();
    this.refresh();
  }

  choose(changed) {
    localStorage.setItem(CHOICES, JSON.stringify({ ...choices(), ...changed }));
    this.showChoices();
    this.show();
  }

  showChoices() {
    const { sort, descending, everything } = choices();
    this.part("sort").value = sort;
    this.part("everything").checked = everything;
    const turn = this.querySelector('[data-do="turn"]');
    turn.setAttribute("aria-pressed", descending);
    turn.title = descending ? "Descending" : "Ascending";
  }

  clear() {
    this.cards = [];
    this.count = 0;
    this.part("grid").replaceChildren();
    this.part("count").textContent = "";
  }

  // Answers cards from the server; nothing where another list was asked for meanwhile, or there is no answer.
  async ask(limit, offset) {
    const turn = this.turn;
    this.loading = turn;
    const { kind, text, folder } = this.look;
    const query = new URLSearchParams({ kind, text, folder, limit, offset, ...choices() });
    const answer = await attempt(() => call(`networks?${query}`));
    if (turn !== this.turn) return null;
    this.loading = 0;
    return answer;
  }

  // Shows the cards from the first on; as many as there were with `keep`, which leaves the place in the list.
  async show(keep = false) {
    if (keep && this.cards.length > MOST) return; // far down the list, it stays as it was
    this.turn += 1;
    const answer = await this.ask(keep ? Math.min(MOST, Math.max(PAGE, this.cards.length)) : PAGE, 0);
    if (!answer) return;
    const scroll = this.part("scroll");
    const focused = keep && this.contains(document.activeElement) && document.activeElement.closest(".card")?.dataset.id;
    this.cards = answer.networks;
    this.usual = answer.weight;
    this.family = answer.family;
    this.revision = answer.revision;
    this.part("grid").replaceChildren(...this.cards.map((one) => this.card(one)));
    if (!keep) scroll.scrollTop = 0;
    if (focused) this.querySelector(`.card[data-id="${focused}"] .card-main`)?.focus();
    this.tell(answer);
    this.mark();
    this.watchEnd();
  }

  // An end that stays in sight says so but once.
  watchEnd() {
    this.observer.unobserve(this.part("end"));
    this.observer.observe(this.part("end"));
  }

  async more() {
    if (this.loading || !this.cards.length || this.cards.length >= this.count) return;
    const answer = await this.ask(PAGE, this.cards.length);
    if (!answer) return;
    const known = new Set(this.cards.map((one) => one.id));
    const fresh = answer.networks.filter((one) => !known.has(one.id));
    this.cards.push(...fresh);
    this.part("grid").append(...fresh.map((one) => this.card(one)));
    if (!answer.networks.length) this.count = this.cards.length;
    this.mark();
    this.watchEnd();
  }

  tell(answer) {
    this.count = answer.count;
    this.tellCount(answer.scanning);
    this.part("other").hidden = !answer.family;
    this.showFolders(answer.folders);
    if (answer.scanning) this.watch();
  }

  tellCount(scanning) {
    this.scanning = scanning;
    const found = `${this.count.toLocaleString()} ${this.count === 1 ? "network" : "networks"}`;
    this.part("count").textContent = scanning ? `${found} · looking through the folders …` : found;
    if (!this.cards.length) this.part("grid").replaceChildren(this.nothing());
  }

  nothing() {
    return element("p", "hint", this.look.text || this.look.folder ? "Nothing matches." : this.scanning ? "Looking through the folders …" : `No ${KINDS[this.look.kind]} yet. Files put into the folder appear here.`);
  }

  async refresh() {
    const answer = await attempt(() => call("networks/refresh", {}));
    if (answer) this.watch();
  }

  // Asks how far the index is until it is complete, and shows what changed.
  watch() {
    clearTimeout(this.watching);
    this.watching = setTimeout(async () => {
      const state = await call("networks/state").catch(() => null);
      if (!state || !this.isConnected || !this.look.kind) return;
      if (state.revision !== this.revision) await this.show(true);
      this.tellCount(state.scanning);
      if (state.scanning) this.watch();
    }, PAUSE);
  }

  // The way down to the folder that is shown, then the folders in it.
  showFolders(folders) {
    const names = Object.keys(folders).filter(Boolean);
    const here = this.look.folder;
    const row = this.part("folders");
    row.hidden = !names.length;
    const steps = here ? here.split("/") : [];
    const chips = [this.folder("All", "", !here), ...steps.map((step, index) => this.folder(step, steps.slice(0, index + 1).join("/"), index === steps.length - 1))];
    const below = here ? `${here}/` : "";
    const inside = new Map();
    for (const name of names) {
      if (!name.startsWith(below) || name === here) continue;
      const step = name.slice(below.length).split("/")[0];
      inside.set(step, (inside.get(step) || 0) + folders[name]);
    }
    row.replaceChildren(...chips, ...(inside.size ? [element("span", "divider", "›")] : []), ...[...inside].map(([step, count]) => this.folder(step, below + step, false, count)));
  }

  folder(label, folder, chosen, count) {
    const chip = element("button", "chip", label);
    chip.type = "button";
    chip.dataset.folder = folder;
    chip.setAttribute("aria-pressed", chosen);
    if (count) chip.append(element("small", "", count.toLocaleString()));
    return chip;
  }

  card(network) {
    const card = element("div", "card");
    card.dataset.id = network.id;
    const main = element("button", "card-main");
    main.type = "button";
    main.title = [network.file, network.description].filter(Boolean).join("\n\n");
    main.tabIndex = -1;
    const cover = element("span", "card-picture", network.name.slice(0, 2));
    if (network.thumbnail) cover.append(Object.assign(element("img", "card-cover"), { loading: "lazy", alt: "", src: address(network.thumbnail) }));
    main.append(cover, element("span", "card-name", network.name), element("small", "card-text", network.description.split("\n")[0] || network.folder));
    const edit = element("button", "tool icon-pencil card-edit", `Edit ${network.name}`);
    edit.type = "button";
    edit.tabIndex = -1;
    card.append(main, edit);
    const strange = this.family && network.family && network.family !== this.family;
    const label = network.kind === "checkpoint" || strange ? FAMILIES[network.family] : "";
    if (label) card.append(element("span", strange && network.kind !== "checkpoint" ? "card-family strange" : "card-family", label));
    return card;
  }

  // Shows which networks the prompts use, and lets the tabulator reach one card.
  mark() {
    const prompts = this.prompts();
    const chosen = document.querySelector("#setting_sd_model_checkpoint input")?.value.split(" [")[0];
    const cards = [...this.querySelectorAll(".card")];
    cards.forEach((card, index) => {
      const network = this.cards[index];
      const used = network.kind === "checkpoint" ? network.file === chosen : holds(network, prompts.prompt) || (network.kind === "embedding" && holds(network, prompts.negative));
      card.firstChild.setAttribute("aria-pressed", used);
    });
    if (cards.length && !cards.some((card) => card.firstChild.tabIndex === 0)) this.reach(cards[0]);
  }

  // Once a frame however fast somebody types.
  markSoon() {
    this.marking ||= requestAnimationFrame(() => { this.marking = 0; if (this.isConnected) this.mark(); });
  }

  reach(card) {
    for (const one of this.querySelectorAll('.card > [tabindex="0"]')) one.tabIndex = -1;
    for (const button of card.querySelectorAll("button")) button.tabIndex = 0;
  }

  box(name) {
    return document.querySelector(`#${this.tab}_${name === "negative" ? "neg_prompt" : "prompt"} textarea`);
  }

  prompts() {
    return { prompt: this.box("prompt")?.value || "", negative: this.box("negative")?.value || "" };
  }

  // Embeddings go into the prompt that was written in last.
  focused(event) {
    for (const name of ["prompt", "negative"]) if (event.target === this.box(name)) this.look.into = name;
    const card = this.contains(event.target) && event.target.closest(".card");
    if (card) this.reach(card);
  }

  typed(event) {
    event.stopPropagation(); // what is typed here is no part of the form
    if (event.target !== this.part("search")) return;
    clearTimeout(this.timer);
    this.look.text = event.target.value;
    this.timer = setTimeout(() => this.show(), 150);
  }

  clicked(event) {
    const tab = event.target.closest('[role="tab"]');
    if (tab) return this.open(tab.dataset.kind);
    const chip = event.target.closest(".chip");
    if (chip) { this.look.folder = chip.dataset.folder; return this.show(); }
    const action = event.target.closest("[data-do]")?.dataset.do;
    if (action === "refresh") return this.refresh();
    if (action === "turn") return this.choose({ descending: !choices().descending });
    const card = event.target.closest(".card");
    const network = card && this.cards.find((one) => one.id === Number(card.dataset.id));
    if (!network) return undefined;
    this.reach(card);
    if (event.target.closest(".card-edit")) return this.edit(network);
    return event.target.closest(".card-main") && this.use(network);
  }

  async use(network) {
    if (network.kind === "checkpoint") {
      if (await attempt(() => call(`networks/${network.id}/choose`, {}))) document.getElementById("refresh_sd_model_checkpoint")?.click();
      return;
    }
    if (!sayable(network)) { toast(`${network.name} cannot be named in a prompt.`, "A name with a colon or a bracket ends a tag: rename the file.", "note"); return; }
    const before = this.prompts();
    const after = toggled(network, before, this.look.into, this.usual);
    for (const name of ["prompt", "negative"]) {
      if (after[name] === before[name]) continue;
      const box = this.box(name);
      box.value = after[name];
      box.dispatchEvent(new Event("input", { bubbles: true }));
    }
    this.mark();
  }

  edit(network) {
    editNetwork(network, (changed) => {
      const index = this.cards.findIndex((one) => one.id === changed.id);
      if (index < 0) return;
      this.cards[index] = changed;
      this.querySelectorAll(".card")[index].replaceWith(this.card(changed));
      this.mark();
    });
  }

  pressed(event) {
    const row = event.target.closest('[role="tablist"], .networks-grid');
    if (!row || event.altKey || event.ctrlKey || event.metaKey) return;
    const items = [...row.querySelectorAll('[role="tab"], .card-main')];
    const at = items.indexOf(event.target);
    const columns = row.matches(".networks-grid") ? getComputedStyle(row).gridTemplateColumns.split(" ").length : items.length;
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + columns, ArrowUp: at - columns, Home: 0, End: items.length - 1 }[event.key];
    if (at < 0 || to === undefined || !items[to]) return;
    event.preventDefault();
    items[to].focus();
  }
}

function element(name, className, words = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = words;
  return made;
}

customElements.define("darkroom-networks", Networks);
