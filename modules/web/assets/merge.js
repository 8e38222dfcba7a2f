// Merges of checkpoints: follows the one under way and shows what the last one made.

import { address, attempt, call, complain, duration, text } from "./api.js";

const ENDED = ["finished", "failed", "cancelled", "interrupted"];
const NOTHING = { interrupted: "Interrupted; nothing was written.", cancelled: "Cancelled; nothing was written." };

class Merge extends HTMLElement {
  connectedCallback() {
    if (!this.firstChild) this.build();
    this.refresh();
  }

  disconnectedCallback() {
    this.unfollow();
  }

  build() {
    this.innerHTML = `
      <div class="failure" role="alert" hidden></div>
      <div class="progress" hidden>
        <div class="bar" role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-label="Progress"><i></i></div>
        <div class="state-row"><div class="state" aria-live="polite"></div>
          <button type="button" class="button" id="modelmerger_cancel">Cancel</button></div></div>
      <div class="merged" aria-live="polite"><p class="hint">The new checkpoint is named here once it is written.</p></div>
      <ul class="warnings" hidden></ul>`;
    this.querySelector("#modelmerger_cancel").addEventListener("click", () => attempt(() => call(`jobs/${this.job.id}/cancel`, {})));
  }

  part(selector) {
    return this.querySelector(selector);
  }

  async refresh() {
    const answer = await attempt(() => call("session?kind=merge"));
    if (!answer || !this.isConnected) return;
    const current = answer.active[0];
    if (current) {
      this.update(current);
      this.follow(current.id);
    } else if (answer.last) {
      this.show(answer.last);
    }
  }

  follow(id) {
    this.unfollow();
    this.source = new EventSource(address(`darkroom/page/jobs/${id}/events`));
    for (const kind of ["progress", "ended"]) this.source.addEventListener(kind, (event) => this.update(JSON.parse(event.data)));
  }

  unfollow() {
    this.source?.close();
    this.source = null;
  }

  update(job) {
    if (ENDED.includes(job.state)) {
      this.unfollow();
      this.show(job);
      if (job.state === "finished") document.getElementById("refresh_sd_model_checkpoint")?.click();
      this.refresh();
      return;
    }
    this.job = job;
    this.fail(null);
    const { fraction = 0, phase = "", eta = null } = job.progress || {};
    const percent = Math.round(fraction * 100);
    const bar = this.part(".bar");
    this.part(".progress").hidden = false;
    bar.setAttribute("aria-valuenow", percent);
    bar.firstElementChild.style.width = `${percent}%`;
    bar.classList.toggle("unknown", job.state === "queued" || !fraction);
    this.part(".state").textContent = job.state === "queued" ? "Waiting in the queue"
      : [phase, fraction ? `${percent}%` : "", eta === null ? "" : `${duration(eta)} left`].filter(Boolean).join(" · ") || "Starting";
  }

  show(job) {
    this.part(".progress").hidden = true;
    this.fail(job.failure);
    const { name, size, sha256, tensors } = job.result;
    this.part(".merged").innerHTML = name
      ? `<h3>${text(name)}</h3><dl class="items"><dt>Size</dt><dd>${(size / 1e9).toFixed(2)} GB</dd><dt>Tensors</dt><dd>${tensors}</dd>
        <dt>sha256</dt><dd>${text(sha256)}</dd></dl><p class="hint">It is among the checkpoints at the top.</p>`
      : `<p class="hint">${NOTHING[job.state] || ""}</p>`;
    const list = this.part(".warnings");
    list.hidden = !job.warnings.length;
    list.innerHTML = job.warnings.map((warning) => `<li>${text(warning)}</li>`).join("");
  }

  fail(failure) {
    const panel = this.part(".failure");
    panel.hidden = !failure;
    if (failure) panel.innerHTML = `<b>${text(failure.message)}</b>${failure.hint ? `<p>${text(failure.hint)}</p>` : ""}`;
  }
}

// What one of the tab's buttons came to: a job to follow, or why there is none.
export function merging(answer) {
  if (answer.message) complain(answer);
  if (answer.id) document.querySelector("darkroom-merge")?.refresh();
}

customElements.define("darkroom-merge", Merge);
