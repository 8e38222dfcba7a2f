// Extensions: what was found, switched on or off from the next start on; failures by name.

import { attempt, call, text } from "./api.js";

class Extensions extends HTMLElement {
  async connectedCallback() {
    this.addEventListener("change", async (event) => {
      const id = event.target.dataset.id;
      const answer = await attempt(() => call(`extensions/${encodeURIComponent(id)}`, { enabled: event.target.checked }));
      if (answer) this.show(answer.extensions);
      else event.target.checked = !event.target.checked;
    });
    const answer = await attempt(() => call("extensions"));
    if (answer) this.show(answer.extensions);
  }

  show(extensions) {
    const rows = extensions.map((one) => `<article class="extension ${one.error ? "broken" : ""}">
      <label class="switch"><input type="checkbox" data-id="${text(one.id)}" ${one.enabled ? "checked" : ""} aria-label="Use ${text(one.name)}"><i></i></label>
      <div><h3>${text(one.name)} <small>${text(one.version)}</small></h3><p>${text(one.description)}</p>
      ${one.error ? `<p class="job-failure" role="alert">${text(one.name)} could not be loaded: ${text(one.error)}</p>` : ""}
      ${one.pending ? '<p class="pending">Takes effect at the next start.</p>' : ""}</div></article>`).join("");
    this.innerHTML = `<div class="bar-row"><h2>Installed extensions</h2></div>${rows || '<p class="hint">There are no extensions. Each is a folder with a <code>plugin.py</code> below <code>extensions</code>.</p>'}`;
  }
}

customElements.define("darkroom-extensions", Extensions);
