// The Extras tab's own elements: the picture to enlarge, and a slider between what it was and what it has become.

import { SOURCE as NEWS, address, attempt, call, text } from "./api.js";
import { takesFiles } from "./drop.js";

class Source extends HTMLElement {
  connectedCallback() {
    this.innerHTML = `
      <label class="drop" tabindex="0"><input type="file" accept="image/*" aria-label="Choose a picture">
        <span class="hint"><b>Drop a picture here</b><br>or click to choose one</span><img alt="The picture to enlarge" hidden></label>
      <div class="bar-row" hidden><span class="count" aria-live="polite"></span>
        <button type="button" class="button" data-do="clear">Clear</button></div>`;
    takesFiles(this.querySelector(".drop"), ([file]) => this.bring(file));
    this.querySelector('[data-do="clear"]').addEventListener("click", async () => this.show(await attempt(() => call("source/clear", {}))));
    this.told = ({ detail }) => this.show(detail);
    document.addEventListener(NEWS, this.told);
    attempt(() => call("source")).then((answer) => this.show(answer));
  }

  disconnectedCallback() {
    document.removeEventListener(NEWS, this.told);
  }

  async bring(file) {
    if (file) this.show(await attempt(() => call(`source?name=${encodeURIComponent(file.name)}`, file, true)));
  }

  show(answer) {
    if (!answer || !this.isConnected) return;
    const image = this.querySelector("img");
    image.hidden = !answer.id;
    if (answer.id) image.src = address(`darkroom/page/inputs/${answer.id}`);
    else image.removeAttribute("src");
    this.querySelector(".hint").hidden = Boolean(answer.id);
    this.querySelector(".bar-row").hidden = !answer.id;
    this.querySelector(".count").textContent = answer.id ? `${answer.name ? `${answer.name}, ` : ""}${answer.width}×${answer.height}` : "";
  }
}

// A picture with its source over its left part; the slider says how much of that is seen.
export function comparison(image, label) {
  return `<div class="compare" style="--seen: 50%; aspect-ratio: ${image.width} / ${image.height}">
    <img class="picture" alt="${text(label)}" src="${address(image.url)}" width="${image.width}" height="${image.height}">
    <img class="before" alt="" src="${address(`${image.url}/source`)}">
    <i class="edge"></i><span class="side left">Before</span><span class="side right">After</span>
    <input type="range" min="0" max="100" step="0.1" value="50" aria-label="Before and after"></div>`;
}

document.addEventListener("input", ({ target }) => {
  target.closest?.(".compare")?.style.setProperty("--seen", `${target.value}%`);
});

// The source is kept for a while only; without it there is nothing to compare with.
document.addEventListener("error", ({ target }) => {
  if (target.matches?.(".compare .before")) target.closest(".compare").classList.add("alone");
}, true);

customElements.define("darkroom-source", Source);
