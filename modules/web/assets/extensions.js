// Extensions: what was found, switched on or off from the next start on; failures by name; more from an address.

import { attempt, call, text, toast } from "./api.js";

const HINT = "Address of a git repository or an archive; add @ and a commit to pin it";

class Extensions extends HTMLElement {
  async connectedCallback() {
    this.innerHTML = `<form class="bar-row install">
      <input name="address" type="text" autocomplete="off" spellcheck="false" placeholder="${HINT}" aria-label="${HINT}">
      <button class="button" id="extensions_look">Look at it</button></form><p class="hint locked" hidden></p><div class="list"></div><dialog class="offer"></dialog>`;
    this.addEventListener("change", (event) => event.target.dataset.id && this.turn(event.target));
    this.addEventListener("click", (event) => {
      const { update, install, close } = event.target.dataset;
      if (update) this.look({ id: update }, event.target);
      if (install !== undefined) this.install(event.target);
      if (close !== undefined) this.dialog.close();
    });
    this.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      const address = event.target.elements.address.value.trim();
      if (address) this.look({ address }, this.querySelector("#extensions_look"));
    });
    const answer = await attempt(() => call("extensions"));
    if (answer) this.show(answer);
  }

  get dialog() {
    return this.querySelector("dialog");
  }

  async turn(box) {
    const answer = await attempt(() => call(`extensions/${encodeURIComponent(box.dataset.id)}/switch`, { enabled: box.checked }));
    if (answer) this.show(answer);
    else box.checked = !box.checked;
  }

  async look(what, button) {
    const answer = await busy(button, () => call("extensions/look", what));
    if (!answer) return;
    if (!answer.offer) return toast("It is up to date.", "", "note");
    const { name, version, description, revision, packages } = answer.offer;
    this.wanted = { ...what, revision };
    this.dialog.innerHTML = `<h2>${text(name)} <small>${text(version)}</small></h2><p>${text(description)}</p>
      <dl class="items"><dt>Revision</dt><dd>${text(revision)}</dd><dt>Packages</dt><dd>${text(packages.join(", ")) || "none"}</dd></dl>
      <p class="pending">It is code that can do whatever you can. Install it only if you trust where it comes from.</p>
      <div class="bar-row"><span class="spacer"></span><button type="button" class="button" data-close>Leave it</button>
      <button type="button" class="button primary" data-install>${what.id ? "Update" : "Install"}</button></div>`;
    this.dialog.showModal();
  }

  async install(button) {
    const answer = await busy(button, () => call("extensions/install", this.wanted));
    this.dialog.close();
    if (!answer) return;
    this.querySelector("form").reset();
    this.show(answer);
  }

  show({ extensions, locked }) {
    this.querySelector("form").hidden = Boolean(locked);
    const why = this.querySelector(".locked");
    why.hidden = !locked;
    why.textContent = locked;
    const rows = extensions.map((one) => `<article class="extension ${one.error ? "broken" : ""}">
      <label class="switch"><input type="checkbox" data-id="${text(one.id)}" ${one.enabled ? "checked" : ""} ${locked ? "disabled" : ""} aria-label="Use ${text(one.name)}"><i></i></label>
      <div><h3>${text(one.name)} <small>${text(one.version)}</small></h3><p>${text(one.description)}</p>
      ${one.source ? `<p class="source">${text(one.source.address)} at ${text(one.source.revision.slice(0, 12))}</p>` : ""}
      ${one.error ? `<p class="job-failure" role="alert">${text(one.name)} could not be loaded: ${text(one.error)}</p>` : ""}
      ${one.pending ? '<p class="pending">Takes effect at the next start.</p>' : ""}</div>
      ${one.source && !locked ? `<button type="button" class="button" data-update="${text(one.id)}">Update</button>` : ""}</article>`).join("");
    this.querySelector(".list").innerHTML = rows || '<p class="hint">There are no extensions. Each is a folder with a <code>plugin.py</code> below <code>extensions</code>.</p>';
  }
}

// Runs what takes a while, with its button out of reach meanwhile.
async function busy(button, action) {
  button.disabled = true;
  button.classList.add("busy");
  try {
    return await attempt(action);
  } finally {
    button.disabled = false;
    button.classList.remove("busy");
  }
}

customElements.define("darkroom-extensions", Extensions);
