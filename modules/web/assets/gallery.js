// The gallery: every picture, newest first, searched by words, loaded as it scrolls into sight.

import { address, attempt, call, sendButtons, sendTo, text, toast } from "./api.js";
import { infotextHtml } from "./results.js";
import { view } from "./viewer.js";

const PAGE = 60;

class Gallery extends HTMLElement {
  connectedCallback() {
    this.innerHTML = `
      <div class="bar-row"><input type="search" id="gallery_search" placeholder="Search prompts and parameters" aria-label="Search pictures">
        <span class="count" aria-live="polite"></span>
        <button type="button" class="button" data-do="rescan">Rescan folders</button></div>
      <div class="gallery-body"><div class="grid"></div>
        <aside class="detail" hidden><button type="button" class="open" data-do="view" aria-label="Open full screen"><img alt="Chosen picture"></button>
          <div class="bar-row">${sendButtons("", "button primary")}
            <a class="button" data-save download>Save</a>
            <button type="button" class="button" data-do="delete">Delete</button></div>
          <div class="infotext"></div></aside></div>
      <div class="more" aria-hidden="true"></div>`;
    this.search = "";
    this.pictures = [];
    this.querySelector("input").addEventListener("input", (event) => this.typed(event.target.value));
    this.addEventListener("click", (event) => this.clicked(event));
    this.observer = new IntersectionObserver((entries) => { if (entries.some((one) => one.isIntersecting)) this.more(); });
    this.observer.observe(this.querySelector(".more"));
  }

  disconnectedCallback() {
    this.observer.disconnect();
    clearTimeout(this.timer);
  }

  typed(value) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => { this.search = value; this.restart(); }, 200);
  }

  restart() {
    this.pictures = [];
    this.complete = false;
    this.querySelector(".grid").innerHTML = "";
    return this.more();
  }

  async more() {
    if (this.loading || this.complete) return;
    this.loading = true;
    const search = this.search;
    const answer = await attempt(() => call(`gallery?limit=${PAGE}&offset=${this.pictures.length}&text=${encodeURIComponent(search)}`));
    this.loading = false;
    if (!answer || !this.isConnected) return;
    if (search !== this.search) { this.more(); return; }
    this.complete = answer.pictures.length < PAGE;
    const first = this.pictures.length;
    this.pictures.push(...answer.pictures);
    this.querySelector(".count").textContent = `${answer.count.toLocaleString()} picture${answer.count === 1 ? "" : "s"}`;
    this.querySelector(".grid").insertAdjacentHTML("beforeend", answer.pictures.map((picture, index) => `
      <button type="button" class="cell" data-index="${first + index}" aria-label="${text(picture.infotext.slice(0, 80)) || "Picture"}"><img loading="lazy" alt="" src="${address(picture.thumbnail)}"></button>`).join(""));
    if (!this.pictures.length) this.querySelector(".grid").innerHTML = `<p class="hint">${search ? "No picture matches." : "Pictures you make appear here."}</p>`;
  }

  choose(index) {
    const picture = this.pictures[index];
    this.chosen = index;
    const detail = this.querySelector(".detail");
    detail.hidden = false;
    detail.querySelector("img").src = address(picture.url);
    detail.querySelector("[data-save]").href = address(picture.url);
    detail.querySelector(".infotext").innerHTML = infotextHtml(picture.infotext) || "<p>No generation parameters.</p>";
    this.querySelectorAll(".cell").forEach((cell) => cell.setAttribute("aria-pressed", Number(cell.dataset.index) === index));
    if (window.innerWidth < 900) detail.scrollIntoView({ behavior: "smooth", block: "nearest" });
  }

  async clicked(event) {
    const cell = event.target.closest(".cell");
    if (cell) return this.choose(Number(cell.dataset.index));
    const picture = this.pictures[this.chosen];
    const action = event.target.closest("[data-do]")?.dataset.do;
    if (action === "view") view(this.pictures, this.chosen, (at) => this.choose(at));
    const place = event.target.closest("[data-send]")?.dataset.send;
    if (place) sendTo(place, picture.infotext, address(picture.url));
    if (action === "rescan") this.rescan();
    if (action === "delete" && window.confirm("Delete this picture from the disk?")) this.remove_(picture);
    return undefined;
  }

  async rescan() {
    await attempt(() => call("gallery", {}));
    toast("Looking for new pictures.", "", "note");
    setTimeout(() => this.restart(), 1000);
  }

  async remove_(picture) {
    if (!(await attempt(() => call(`gallery/${picture.id}/delete`, {})))) return;
    this.querySelector(".detail").hidden = true;
    await this.restart();
  }
}

customElements.define("darkroom-gallery", Gallery);
