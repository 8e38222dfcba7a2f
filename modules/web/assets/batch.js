// <darkroom-batch tab="img2img">: the files of a batch, sent to the server one by one and listed there.

import { attempt, call, text, toast } from "./api.js";
import { takesFiles } from "./drop.js";

class Batch extends HTMLElement {
  connectedCallback() {
    this.innerHTML = `
      <label class="drop" tabindex="0"><input type="file" accept="image/*" multiple aria-label="Choose pictures">
        <span class="hint"><b>Drop pictures here</b><br>or click to choose them</span></label>
      <div class="bar-row" hidden><span class="count" aria-live="polite"></span>
        <button type="button" class="button" data-do="clear">Clear</button></div>
      <ol class="batch-names"></ol>`;
    takesFiles(this.querySelector(".drop"), (files) => this.bring(files));
    this.querySelector('[data-do="clear"]').addEventListener("click", async () => this.show(await attempt(() => call(`batch/clear?tab=${this.tab}`, {}))));
    attempt(() => call(`batch?tab=${this.tab}`)).then((answer) => this.show(answer));
  }

  get tab() {
    return this.getAttribute("tab");
  }

  async bring(files) {
    for (const file of files) {
      const answer = await attempt(() => call(`batch?tab=${this.tab}&name=${encodeURIComponent(file.name)}`, file, true));
      this.show(answer);
      if (answer?.skipped) toast(`${file.name} was skipped: ${answer.skipped.message}`, answer.skipped.hint);
    }
  }

  show(answer) {
    if (!answer || !this.isConnected) return;
    const { names } = answer;
    this.querySelector(".bar-row").hidden = !names.length;
    this.querySelector(".count").textContent = `${names.length} picture${names.length === 1 ? "" : "s"}`;
    this.querySelector(".batch-names").innerHTML = names.map((name) => `<li>${text(name)}</li>`).join("");
  }
}

customElements.define("darkroom-batch", Batch);
