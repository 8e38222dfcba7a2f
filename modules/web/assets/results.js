// The results of a tab: follows its jobs by server-sent events and shows what they make.

import { address, attempt, call, complain, duration, sendButtons, sendTo, sendToForm, shownImages, text } from "./api.js";
import { comparison } from "./extras.js";
import { ended } from "./follow.js";
import { view } from "./viewer.js";

const RETRY = 3000;
const PHASES = { queued: "Waiting in the queue" };
const NOTHING = { finished: "Skipped", interrupted: "Interrupted", cancelled: "Cancelled" };

const UPSCALE = `<button type="button" class="button" id="txt2img_upscale" data-do="upscale" title="Makes the shown picture again with the settings of Hires. fix"><span aria-hidden="true">✨</span>&nbsp;Hires. fix</button>`;

const REUSE = `<button type="button" class="button" data-do="reuse">Reuse parameters</button>`;

export const session = { settings: {}, panel: null, tab: "txt2img" };

class Results extends HTMLElement {
  connectedCallback() {
    if (!this.firstChild) this.build();
    session.panel = this;
    session.tab = this.tab;
    this.shown = this.shown || [];
    this.selected = this.selected || 0;
    this.visibility = () => (document.hidden ? this.unfollow() : this.refresh());
    document.addEventListener("visibilitychange", this.visibility);
    window.addEventListener("focus", this.visibility);
    this.refresh();
  }

  disconnectedCallback() {
    this.unfollow();
    document.removeEventListener("visibilitychange", this.visibility);
    window.removeEventListener("focus", this.visibility);
    if (session.panel === this) session.panel = null;
  }

  get tab() {
    return this.getAttribute("tab");
  }

  build() {
    const tab = this.tab;
    this.innerHTML = `
      <div class="no-model" hidden><h3>No model yet</h3>
        <p>Darkroom makes pictures with a Stable Diffusion checkpoint. Put a <code>.safetensors</code> file into</p>
        <p><code class="folder"></code></p>
        <p>and press the refresh button beside <b>Stable Diffusion checkpoint</b> at the top.</p>
        <p><a href="darkroom/page/readme" target="_blank" rel="noopener">The section <em>Models</em> of README.md</a>
        lists every folder.</p></div>
      <div class="failure" role="alert" hidden></div>
      <div id="${tab}_progress" class="progress" hidden>
        <div class="bar" role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-label="Progress"><i></i></div>
        <div class="state-row"><div class="state" aria-live="polite"></div>
          <button type="button" class="button" data-do="finish" title="Finishes this picture and leaves out the rest of the batch" hidden>Stop after this one</button></div></div>
      <div id="${tab}_gallery" class="gallery empty" tabindex="-1">
        <div class="stage"><p class="hint">Pictures appear here.</p></div>
        <div class="strip" role="listbox" aria-label="Pictures"></div></div>
      <div id="image_buttons_${tab}" class="result-buttons" hidden>
        <a id="save_${tab}" class="button" download>Save</a>
        <a id="save_zip_${tab}" class="button" download>Zip</a>
        ${tab === "extras" ? "" : REUSE}
        ${tab === "txt2img" ? UPSCALE : ""}
        <button type="button" class="button" data-do="view">Full screen</button>
        ${sendButtons(tab)}</div>
      <div id="html_info_${tab}" class="infotext"></div>
      <ul class="warnings" hidden></ul>`;
    this.addEventListener("click", (event) => this.clicked(event));
    this.addEventListener("keydown", (event) => this.turned(event));
  }

  part(selector) {
    return this.querySelector(selector);
  }

  async refresh() {
    const answer = await attempt(() => call(`session?kind=${this.tab}`));
    if (!this.isConnected) return;
    if (!answer) {
      if (document.body.classList.contains("generating")) this.retry = setTimeout(() => this.refresh(), RETRY);
      return;
    }
    session.settings = answer;
    this.part(".no-model").hidden = answer.models > 0;
    this.part(".folder").textContent = answer.folder;
    this.part(".gallery").hidden = answer.models === 0 && !answer.last && !answer.active.length;
    this.waiting = answer.active;
    const current = answer.active[0];
    if (!current) {
      this.unfollow();
      this.idle();
      const fresh = answer.last && answer.last.id !== this.shownJob;
      this.showBefore(answer);
      if (fresh) this.showJob(answer.last);
      return;
    }
    if (!current.images.length) this.showBefore(answer);
    this.update(current);
    this.follow(current.id);
  }

  showBefore(answer) {
    if (!this.shown.length && answer.pictures) this.showImages(answer.pictures);
  }

  follow(id) {
    if (document.hidden || this.following === id) return;
    this.unfollow();
    this.following = id;
    this.source = new EventSource(address(`darkroom/page/jobs/${id}/events`));
    for (const kind of ["progress", "preview", "image", "ended"]) {
      this.source.addEventListener(kind, (event) => this.update(JSON.parse(event.data)));
    }
    this.source.addEventListener("error", () => this.lost());
  }

  // A browser takes up a broken connection again by itself, but not one that was answered with an error.
  lost() {
    this.part(".state").textContent = "The server does not answer. Trying again…";
    if (this.source?.readyState !== EventSource.CLOSED) return;
    this.unfollow();
    this.retry = setTimeout(() => this.refresh(), RETRY);
  }

  unfollow() {
    clearTimeout(this.retry);
    this.source?.close();
    this.source = null;
    this.following = null;
  }

  update(job) {
    this.job = job;
    if (ended(job)) {
      this.unfollow();
      this.idle();
      this.showJob(job);
      if (job.failure && this.waiting?.length > 1) complain(job.failure);
      this.refresh();
      return;
    }
    this.busy(job);
    if (job.images.length && (this.shownJob !== job.id || this.shown.length !== job.shown.length)) {
      this.showImages(job, true);
    }
  }

  busy(job) {
    document.body.classList.add("generating");
    this.part(".failure").hidden = true;
    const progress = job.progress || {};
    const percent = Math.round((progress.fraction || 0) * 100);
    this.part(".progress").hidden = false;
    const bar = this.part(".bar");
    bar.setAttribute("aria-valuenow", percent);
    bar.firstElementChild.style.width = `${percent}%`;
    bar.classList.toggle("unknown", job.state === "queued" || !progress.fraction);
    this.part(".state").textContent = stateText(job, percent, (this.waiting?.length || 1) - 1);
    this.part('[data-do="finish"]').hidden = job.state !== "running" || !(progress.pictures > 1);
    if (session.settings.title) document.title = job.state === "running" ? `[${percent}%] Darkroom` : "Darkroom";
    if (job.preview_url) this.preview(job.preview_url);
  }

  idle() {
    document.body.classList.remove("generating");
    this.part(".progress").hidden = true;
    this.part(".live")?.remove();
    document.title = "Darkroom";
  }

  preview(url) {
    let image = this.part(".live");
    if (!image) {
      image = document.createElement("img");
      image.className = "live";
      image.alt = "Preview of the picture in the making";
      this.part(".stage").append(image);
      this.part(".gallery").classList.remove("empty");
    }
    if (image.dataset.url === url) return;
    image.dataset.url = url;
    const next = new Image();
    next.onload = () => { image.src = next.src; };
    next.src = address(url);
  }

  showJob(job) {
    if (job.saved) this.showImages(job);
    if (job.saved && !job.images.length) {
      const pictures = job.saved === 1 ? "picture was" : "pictures were";
      this.part(".stage").innerHTML = `<p class="hint">${job.saved} ${pictures} saved.</p>`;
    }
    this.shownJob = job.id;
    this.fail(job.failure);
    const nothing = !job.saved && !job.failure;
    const notes = nothing ? [...job.warnings, `${NOTHING[job.state]} before a picture was finished.`] : job.warnings;
    const list = this.part(".warnings");
    list.hidden = !notes.length;
    list.innerHTML = notes.map((warning) => `<li>${text(warning)}</li>`).join("");
  }

  // Returns whether the reason of a refused request is in sight here.
  explain(failure) {
    if (!this.part(".no-model").hidden) return false;
    this.fail(failure);
    const place = this.part(".failure").getBoundingClientRect();
    return place.height > 0 && place.top >= 0 && place.bottom <= window.innerHeight;
  }

  fail(failure) {
    const panel = this.part(".failure");
    panel.hidden = !failure;
    if (failure) panel.innerHTML = `<b>${text(failure.message)}</b>${failure.hint ? `<p>${text(failure.hint)}</p>` : ""}`;
  }

  showImages(job, partial = false) {
    this.shownJob = job.id;
    this.shown = shownImages(job);
    this.selected = partial ? this.shown.length - 1 : 0;
    const zip = this.part(`#save_zip_${this.tab}`);
    zip.href = address(`darkroom/page/jobs/${job.id}/pictures.zip`);
    zip.hidden = this.shown.length < 2;
    this.part(".gallery").classList.toggle("empty", !this.shown.length);
    const strip = this.part(".strip");
    strip.hidden = this.shown.length < 2;
    strip.innerHTML = this.shown.map((image, index) => `
      <button type="button" role="option" data-index="${index}" aria-label="${image.kind === "grid" ? "Grid" : `Picture ${index + 1}, seed ${text(image.seed)}`}">
      <img loading="lazy" alt="" src="${address(image.thumbnail)}"></button>`).join("");
    this.select(this.selected);
  }

  select(index) {
    const image = this.shown[index];
    const stage = this.part(".stage");
    const live = this.part(".live");
    this.selected = index;
    this.part(".result-buttons").hidden = !image;
    this.part(".infotext").innerHTML = image ? infotextHtml(image.infotext) : "";
    if (!image) {
      stage.innerHTML = '<p class="hint">Pictures appear here.</p>';
      if (live) stage.append(live);
      return;
    }
    const label = `Result ${index + 1} of ${this.shown.length}`;
    if (this.tab === "extras") stage.innerHTML = comparison(image, label);
    else stage.innerHTML = `<button type="button" class="open" data-do="view" aria-label="Open full screen"><img class="picture" alt="${label}" src="${address(image.url)}" width="${image.width}" height="${image.height}"></button>`;
    if (live && this.job && !ended(this.job)) stage.append(live);
    this.part(`#save_${this.tab}`).href = address(image.url);
    this.querySelectorAll(".strip button").forEach((button, at) => button.setAttribute("aria-selected", at === index));
  }

  clicked(event) {
    const action = event.target.closest("[data-do]")?.dataset.do;
    const index = event.target.closest("[data-index]")?.dataset.index;
    if (index !== undefined) {
      this.part(".live")?.remove();
      this.select(Number(index));
    }
    if (action === "view" && this.shown.length) view(this.shown, this.selected, (at) => this.select(at));
    if (action === "finish") attempt(() => call("queue/stop", {}));
    if (action === "upscale" && this.current()) document.getElementById("txt2img_upscale_shown").click();
    const place = event.target.closest("[data-send]")?.dataset.send;
    if (place && this.current()) sendTo(place, this.current().infotext, address(this.current().url));
    if (action === "reuse" && this.shown.length) sendToForm(this.tab, this.current().infotext);
  }

  turned(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || this.shown.length < 2 || !event.target.closest(".gallery")) return;
    event.preventDefault();
    this.select((this.selected + by + this.shown.length) % this.shown.length);
    this.querySelectorAll(".strip button")[this.selected].focus();
  }

  current() {
    return this.shown[this.selected];
  }
}

function stateText(job, percent, waiting) {
  const progress = job.progress || {};
  const queue = waiting > 0 ? ` · ${waiting} more in the queue` : "";
  if (job.state === "queued" && session.settings.paused) return `The queue is paused: press Resume in the tab Queue${queue}`;
  if (job.state === "queued") return PHASES.queued + queue;
  const parts = [];
  if (progress.phase) parts.push(progress.phase);
  if (progress.fraction) parts.push(`${percent}%`);
  if (progress.pictures > 1) parts.push(`picture ${Math.min(progress.picture + 1, progress.pictures)} of ${progress.pictures}`);
  if (progress.steps) parts.push(`step ${progress.step}/${progress.steps}`);
  if (progress.eta !== null && progress.eta !== undefined) parts.push(`${duration(progress.eta)} left`);
  return (parts.join(" · ") || "Starting") + queue;
}

export function infotextHtml(infotext) {
  const [first, ...lines] = infotext.split("\n");
  const rest = lines.map((line) => `<p>${text(line)}</p>`).join("");
  return infotext ? `<p class="first">${text(first)}</p>${rest}` : "";
}

// The tab that makes pictures and is open, or was last.
export function openGenerator() {
  return session.panel?.tab || session.tab;
}

// What is painted goes to the server before the form does.
export async function generate(tab) {
  const editors = [...document.querySelectorAll(`darkroom-editor[tab="${tab}"]`)];
  if (editors.length && !(await attempt(async () => { for (const editor of editors) await editor.saved(); return true; }))) return;
  document.getElementById(`${tab}_send`)?.click();
}

export function submitted(answer) {
  if (answer.message) {
    if (!session.panel?.explain(answer)) complain(answer);
    return;
  }
  document.getElementById("toasts")?.replaceChildren();
  session.panel?.refresh();
  if (matchMedia("(max-width: 680px)").matches) session.panel?.scrollIntoView({ behavior: "smooth", block: "start" });
}

export async function interrupt() {
  const id = session.panel?.job && !ended(session.panel.job) ? session.panel.job.id : null;
  await attempt(() => (id ? call(`jobs/${id}/cancel`, {}) : call("queue/interrupt", {})));
}

export async function skip() {
  await attempt(() => call("queue/skip", {}));
}

customElements.define("darkroom-results", Results);
