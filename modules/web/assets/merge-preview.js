// The preview of a merge: follows what is asked for and shows its pictures.

import { address, attempt, call, complain, text } from "./api.js";
import { ended, failureHtml, follow, progressHtml } from "./follow.js";
import { view } from "./viewer.js";

const STOPPED = { cancelled: "Cancelled.", interrupted: "Stopped." };

class MergePreview extends HTMLElement {
  connectedCallback() {
    this.addEventListener("click", (event) => this.clicked(event));
    this.start();
  }

  disconnectedCallback() {
    this.stop?.();
  }

  async start() {
    const answer = await attempt(() => call("session?origin=merge+preview"));
    if (!answer || !this.isConnected) return;
    const [current] = answer.active;
    if (current) this.follow(current.id);
    else if (answer.last) this.show(answer.last);
    else this.innerHTML = `<p class="hint">A picture of the merge, made with the prompt and the settings of txt2img. Nothing is saved.</p>`;
  }

  follow(id) {
    this.stop?.();
    this.job = id;
    this.stop = follow(id, (job) => this.show(job));
  }

  show(job) {
    this.pictures = (job.shown ? job.shown.map((index) => job.images[index]) : job.images).filter(Boolean);
    const progress = ended(job) ? failureHtml(job.failure) + (STOPPED[job.state] ? `<p class="hint">${STOPPED[job.state]}</p>` : "") : progressHtml(job);
    this.innerHTML = `${progress}<div class="merge-pictures">${this.pictures.map((picture, index) => `<button type="button" data-index="${index}" aria-label="Open full screen"><img alt="${text(picture.infotext.slice(0, 80)) || "Preview"}" src="${address(picture.url)}"></button>`).join("")}</div>
      ${job.warnings.length ? `<ul class="warnings">${job.warnings.map((warning) => `<li>${text(warning)}</li>`).join("")}</ul>` : ""}`;
  }

  clicked(event) {
    const index = event.target.closest("[data-index]")?.dataset.index;
    if (index !== undefined) view(this.pictures, Number(index), () => {});
    if (event.target.closest('[data-do="cancel"]')) attempt(() => call(`jobs/${this.job}/cancel`, {}));
  }
}

// What one of the section's buttons came to: a job to follow, or why there is none.
export function previewing(answer) {
  if (answer.message) complain(answer);
  if (answer.id) document.querySelector("darkroom-merge-preview")?.follow(answer.id);
}

customElements.define("darkroom-merge-preview", MergePreview);
