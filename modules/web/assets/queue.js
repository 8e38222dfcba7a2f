// The queue: what runs, what waits (drag or buttons reorder it), what has ended.

import { address, attempt, call, duration, shownImages, text } from "./api.js";
import { view } from "./viewer.js";

const PERIOD = 1000;

class Queue extends HTMLElement {
  connectedCallback() {
    this.innerHTML = `
      <div class="bar-row"><h2>Queue</h2>
        <button type="button" class="button" id="queue_pause" data-do="pause">Pause</button></div>
      <p class="paused-note" hidden>Paused: what runs goes on, nothing new begins.</p>
      <div class="jobs" data-list="running"></div>
      <div class="jobs" data-list="queued"></div>
      <div class="bar-row"><h2>History</h2></div>
      <div class="jobs" data-list="ended"></div>`;
    this.lists = {};
    this.addEventListener("click", (event) => this.clicked(event));
    this.addEventListener("dragstart", (event) => { this.dragged = event.target.dataset.id; });
    this.addEventListener("dragover", (event) => { if (event.target.closest('[draggable="true"]')) event.preventDefault(); });
    this.addEventListener("drop", (event) => this.dropped(event));
    this.refresh();
    this.timer = setInterval(() => { if (!document.hidden && this.offsetParent) this.refresh(); }, PERIOD);
  }

  disconnectedCallback() {
    clearInterval(this.timer);
  }

  async refresh() {
    const answer = await call("queue").catch(() => null);
    if (!answer || !this.isConnected) return;
    this.jobs = new Map([...answer.running, ...answer.queued, ...answer.ended].map((job) => [job.id, job]));
    this.order = answer.queued.map((job) => job.id);
    this.paused = answer.paused;
    this.querySelector("#queue_pause").textContent = answer.paused ? "Resume" : "Pause";
    this.querySelector(".paused-note").hidden = !answer.paused;
    for (const name of ["running", "queued", "ended"]) this.fill(name, answer[name]);
  }

  fill(name, jobs) {
    const html = jobs.map((job, index) => row(job, index, jobs.length)).join("") || empty(name);
    if (this.lists[name] === html) return;
    this.lists[name] = html;
    this.querySelector(`[data-list="${name}"]`).innerHTML = html;
  }

  async clicked(event) {
    const button = event.target.closest("[data-do]");
    if (!button) return;
    const id = button.closest("[data-id]")?.dataset.id;
    const at = this.order.indexOf(id);
    const action = {
      pause: () => call(`queue/${this.paused ? "resume" : "pause"}`, {}),
      stop: () => call("queue/stop", {}),
      cancel: () => call(`jobs/${id}/cancel`, {}),
      forget: () => call(`jobs/${id}/forget`, {}),
      up: () => call(`jobs/${id}/move`, { before: this.order[at - 1] }),
      down: () => call(`jobs/${id}/move`, { before: this.order[at + 2] ?? null }),
      view: () => view(shownImages(this.jobs.get(id)), Number(button.dataset.index)),
    }[button.dataset.do];
    await attempt(action);
    await this.refresh();
  }

  async dropped(event) {
    const before = event.target.closest('[draggable="true"]')?.dataset.id;
    if (!before || before === this.dragged) return;
    event.preventDefault();
    await attempt(() => call(`jobs/${this.dragged}/move`, { before }));
    await this.refresh();
  }
}

function empty(name) {
  return { running: "", queued: '<p class="hint">Nothing waits.</p>', ended: '<p class="hint">Nothing has ended yet.</p>' }[name];
}

function row(job, index, count) {
  const queued = job.state === "queued";
  const percent = Math.round((job.progress?.fraction || 0) * 100);
  const pictures = shownImages(job).slice(0, 6).map((image, at) => `
    <button type="button" class="thumb" data-do="view" data-index="${at}" aria-label="Open picture ${at + 1}"><img loading="lazy" alt="" src="${address(image.thumbnail)}"></button>`).join("");
  return `<article class="job ${job.state}" data-id="${job.id}" ${queued ? 'draggable="true"' : ""}>
    <div class="job-text"><p class="job-prompt">${text(job.prompt) || "<i>Empty prompt</i>"}</p>
      <p class="job-facts"><b class="badge">${job.state}</b> ${text(job.summary)}${job.pictures > 1 ? ` · ${job.pictures} pictures` : ""}${times(job)}</p>
      ${job.state === "running" ? `<div class="bar"><i style="width:${percent}%"></i></div>` : ""}
      ${job.failure ? `<p class="job-failure">${text(job.failure.message)} ${text(job.failure.hint)}</p>` : ""}</div>
    <div class="job-pictures">${pictures}</div>
    <div class="job-buttons">
      ${queued ? button("up", "Move up", "↑", index === 0) + button("down", "Move down", "↓", index === count - 1) : ""}
      ${job.state === "running" && job.pictures > 1 ? button("stop", "Finish this picture and leave out the rest of the batch", "Stop after this one") : ""}
      ${job.state === "running" ? button("cancel", "Interrupt", "Interrupt") : ""}
      ${queued ? button("cancel", "Cancel", "Cancel") : ""}
      ${job.ended ? button("forget", "Remove from the history", "×") : ""}</div></article>`;
}

function button(action, label, shown, disabled = false) {
  return `<button type="button" class="button" data-do="${action}" aria-label="${label}" title="${label}" ${disabled ? "disabled" : ""}>${shown}</button>`;
}

function times(job) {
  if (job.ended && job.started) return ` · ${duration(job.ended - job.started)} · ${new Date(job.ended * 1000).toLocaleString()}`;
  return job.progress?.eta ? ` · ${duration(job.progress.eta)} left` : "";
}

customElements.define("darkroom-queue", Queue);
