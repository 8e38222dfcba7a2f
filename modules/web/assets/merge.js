// Work on model files: follows what is under way and shows what the last of it made.

import { attempt, call, complain, fileSize, text } from "./api.js";
import { cancel, endHtml, ended, follow, showProgress, warningsHtml } from "./follow.js";

// The kinds of jobs that the tab queues.
const KINDS = ["merge", "merge_loras", "extract_lora"];
const NOTHING = { interrupted: "Interrupted; nothing was written.", cancelled: "Cancelled; nothing was written." };

class Merge extends HTMLElement {
  connectedCallback() {
    if (!this.firstChild) this.innerHTML = '<p class="hint">What is written is named here.</p>';
    this.refresh();
  }

  disconnectedCallback() {
    this.stop?.();
  }

  async refresh() {
    const answer = await attempt(() => call(`session?kind=${KINDS}`));
    if (!answer || !this.isConnected) return;
    this.stop?.();
    const current = answer.active[0];
    if (current) this.stop = follow(current.id, (job) => this.update(job));
    else if (answer.last) this.show(answer.last);
  }

  update(job) {
    if (ended(job)) {
      this.show(job);
      if (job.state === "finished") for (const id of ["refresh_sd_model_checkpoint", "modelmerger_reload"]) document.getElementById(id)?.click();
      this.refresh();
      return;
    }
    showProgress(this, job);
    const button = this.querySelector('[data-do="cancel"]');
    button.id = "modelmerger_cancel";
    button.onclick = () => cancel(job.id);
  }

  show(job) {
    this.innerHTML = (job.result.name ? made(job) : endHtml(job, NOTHING)) + warningsHtml(job);
  }
}

function made(job) {
  const { name, title, size, sha256, tensors, kept } = job.result;
  const rows = [["Size", fileSize(size)], ["Tensors", tensors],
    ...(kept === undefined ? [] : [["Difference kept", `${(kept * 100).toFixed(1)} % of its square`]]), ["sha256", text(sha256)]];
  return `<div class="merged"><h3>${text(name)}</h3><dl class="items">${rows.map(([label, value]) => `<dt>${label}</dt><dd>${value}</dd>`).join("")}</dl>
    <p class="hint">It is among the ${title ? "checkpoints at the top" : "LoRAs"}.</p></div>`;
}

// What one of the tab's buttons came to: a job to follow, or why there is none.
export function merging(answer) {
  if (answer.message) complain(answer);
  if (answer.id) document.querySelector("darkroom-merge")?.refresh();
}

customElements.define("darkroom-merge", Merge);
