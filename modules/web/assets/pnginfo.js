// PNG Info: a picture goes to the server as it is; its parameters come back and can fill the form.

import { attempt, call, sendButtons, sendTo, text } from "./api.js";
import { takesFiles } from "./drop.js";
import { infotextHtml } from "./results.js";

class PngInfo extends HTMLElement {
  connectedCallback() {
    this.innerHTML = `<div class="pnginfo">
      <label id="pnginfo_image" class="drop" tabindex="0"><input type="file" accept="image/*" aria-label="Choose a picture">
        <span class="hint"><b>Drop a picture here</b><br>or click to choose one</span><img alt="" hidden></label>
      <div class="found"><div id="pnginfo_html_info" class="infotext" aria-live="polite"><p class="hint">The parameters that a picture was made with appear here.</p></div>
        <div class="bar-row" hidden>${sendButtons("", "button primary")}
          <button type="button" class="button" id="pnginfo_copy">Copy</button></div>
        <dl class="items"></dl></div></div>`;
    const image = this.querySelector("img");
    takesFiles(this.querySelector(".drop"), ([file]) => this.read(file));
    for (const button of this.querySelectorAll("[data-send]")) {
      button.id = `pnginfo_send_to_${button.dataset.send}`;
      button.addEventListener("click", () => sendTo(button.dataset.send, this.infotext, image.src));
    }
    this.querySelector("#pnginfo_copy").addEventListener("click", () => attempt(() => navigator.clipboard.writeText(this.infotext)));
  }

  async read(file) {
    if (!file) return;
    const image = this.querySelector("img");
    URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(file);
    image.hidden = false;
    this.querySelector(".drop .hint").hidden = true;
    const answer = await attempt(async () => call("pnginfo", await file.arrayBuffer(), true));
    image.hidden = !answer;
    this.querySelector(".drop .hint").hidden = Boolean(answer);
    this.infotext = answer?.infotext || "";
    this.querySelector(".infotext").innerHTML = infotextHtml(this.infotext)
      || `<p class="hint">${answer ? "This picture carries no generation parameters." : "This file could not be read as a picture."}</p>`;
    this.querySelector(".found .bar-row").hidden = !answer;
    for (const id of ["pnginfo_send_to_txt2img", "pnginfo_copy"]) this.querySelector(`#${id}`).hidden = !this.infotext;
    const items = Object.entries(answer?.items || {}).filter(([name]) => name !== "parameters");
    this.querySelector(".items").innerHTML = items.map(([name, value]) => `<dt>${text(name)}</dt><dd>${text(value)}</dd>`).join("");
  }
}

customElements.define("darkroom-pnginfo", PngInfo);
