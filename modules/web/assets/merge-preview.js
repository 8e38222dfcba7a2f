// The preview of a merge: follows what is asked for and shows its pictures.

import { address, attempt, call, complain, shownImages, text } from "./api.js";
import { cancel, endHtml, ended, follow, showProgress, warningsHtml } from "./follow.js";
import { view } from "./viewer.js";

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
    if (!this.part("state")) this.innerHTML = '<div data-part="state"></div><div class="merge-pictures"></div><div data-part="warnings"></div>';
    if (ended(job)) this.part("state").innerHTML = endHtml(job);
    else showProgress(this.part("state"), job);
    this.part("warnings").innerHTML = warningsHtml(job);
    const pictures = shownImages(job);
    if (this.shown === `${job.id} ${job.shown}`) return;
    this.shown = `${job.id} ${job.shown}`;
    this.pictures = pictures;
    this.querySelector(".merge-pictures").innerHTML = pictures.map((picture, index) => `<button type="button" data-index="${index}" aria-label="Open full screen"><img alt="${text(picture.infotext.slice(0, 80)) || "Preview"}" src="${address(picture.url)}"></button>`).join("");
  }

  part(name) {
    return this.querySelector(`[data-part="${name}"]`);
  }

  clicked(event) {
    const index = event.target.closest("[data-index]")?.dataset.index;
    if (index !== undefined) view(this.pictures, Number(index), () => {});
    if (event.target.closest('[data-do="cancel"]')) cancel(this.job);
  }
}

// What one of the section's buttons came to: a job to follow, or why there is none.
export function previewing(answer) {
  if (answer.message) complain(answer);
  if (answer.id) document.querySelector("darkroom-merge-preview")?.follow(answer.id);
}

customElements.define("darkroom-merge-preview", MergePreview);
