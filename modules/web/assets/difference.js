// The difference of two checkpoints, block by block: the picture, and the numbers below it.

import { address, attempt, call, text } from "./api.js";
import { cancel, endHtml, ended, follow, showProgress } from "./follow.js";

class Difference extends HTMLElement {
  connectedCallback() {
    this.innerHTML = `<div class="bar-row"><input id="difference_model" list="difference_names" autocomplete="off" placeholder="Another checkpoint" aria-label="Another checkpoint" maxlength="300">
        <datalist id="difference_names"></datalist><button type="button" class="button" data-do="compare">Compare</button></div><div data-part="compared" aria-live="polite"></div>`;
    this.other = this.querySelector("input");
    this.addEventListener("click", (event) => this.clicked(event));
    this.start();
  }

  disconnectedCallback() {
    this.stop?.();
  }

  get model() {
    return this.getAttribute("model");
  }

  async start() {
    const [names, session] = await Promise.all([
      attempt(() => call("inspections/names?kind=checkpoint&limit=1000")), attempt(() => call("session?kind=difference"))]);
    if (!names || !session || !this.isConnected) return;
    this.querySelector("datalist").replaceChildren(...names.names.filter((name) => name !== this.model).map((name) => new Option(name)));
    const [current] = session.active;
    if (current) this.follow(current.id);
    else if (session.last?.result.model_a === this.model) this.show(session.last);
  }

  clicked(event) {
    const action = event.target.closest("[data-do]")?.dataset.do;
    if (!action) return;
    event.stopPropagation();
    if (action === "compare") this.compare();
    if (action === "cancel") cancel(this.job);
  }

  async compare() {
    const job = await attempt(() => call("differences", { model_a: this.model, model_b: this.other.value }));
    if (job) this.follow(job.id);
  }

  follow(id) {
    this.stop?.();
    this.job = id;
    this.stop = follow(id, (job) => this.show(job));
  }

  show(job) {
    const place = this.querySelector('[data-part="compared"]');
    if (!place) return;
    if (!ended(job)) return showProgress(place, job);
    // What runs may compare another model with something; its result belongs there.
    place.innerHTML = endHtml(job) || (job.result.model_a === this.model ? this.result(job) : "");
  }

  result(job) {
    const { model_a: a, model_b: b, blocks } = job.result;
    const theme = document.body.classList.contains("dark") ? "dark" : "light";
    const picture = address(`darkroom/page/differences/${job.id}/picture?theme=${theme}`);
    return `<a href="${picture}" target="_blank"><img class="difference" alt="Difference of ${text(b)} from ${text(a)} by block" src="${picture}"></a>
      ${job.warnings.map((warning) => `<p class="damaged">${text(warning)}</p>`).join("")}
      <details><summary>Numbers</summary><div class="scroll"><table><thead><tr><th>Block</th><th>Difference</th><th>Tensors</th><th>Equal</th></tr></thead>
        <tbody>${blocks.map((one) => `<tr><td>${text(one.block)}</td><td>${one.difference === null ? "-" : one.difference.toPrecision(6)}</td><td>${one.tensors}</td><td>${one.equal}</td></tr>`).join("")}</tbody></table></div></details>`;
  }
}

customElements.define("darkroom-difference", Difference);
