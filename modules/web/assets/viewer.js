// The full-screen viewer: arrow keys turn the pages, s saves, Escape closes.

import { address, sendButtons, sendTo, text } from "./api.js";

let pictures = [];
let index = 0;
let returnTo = null;
let onTurn = () => {};

function element() {
  let dialog = document.getElementById("lightboxModal");
  if (dialog) return dialog;
  dialog = document.createElement("dialog");
  dialog.id = "lightboxModal";
  dialog.setAttribute("aria-label", "Picture viewer");
  dialog.innerHTML = `
    <div class="viewer-bar"><span class="viewer-place"></span>
      <a class="viewer-button" data-do="save" download>Save</a>
      <button type="button" class="viewer-button" data-do="info">Info</button>
      <button type="button" class="viewer-button" data-do="zoom">Zoom</button>
      ${sendButtons("", "viewer-button")}
      <button type="button" class="viewer-button" data-do="close" aria-label="Close">Close</button></div>
    <div class="viewer-stage"><img alt=""></div>
    <button type="button" class="viewer-turn before" data-do="before" aria-label="Previous picture">‹</button>
    <button type="button" class="viewer-turn after" data-do="after" aria-label="Next picture">›</button>
    <pre class="viewer-info" hidden></pre>`;
  dialog.addEventListener("click", (event) => {
    const action = event.target.closest("[data-do]")?.dataset.do;
    const place = event.target.closest("[data-send]")?.dataset.send;
    if (place) send(dialog, place);
    else if (action) actions[action]?.(dialog);
    else if (event.target.classList.contains("viewer-stage")) dialog.close();
  });
  dialog.addEventListener("close", () => returnTo?.focus?.({ preventScroll: true }));
  dialog.addEventListener("keydown", (event) => {
    const action = { ArrowLeft: "before", ArrowRight: "after", s: "save" }[event.key];
    if (event.key === "Escape") event.stopPropagation();
    if (!action || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    if (action === "save") dialog.querySelector('[data-do="save"]').click();
    else actions[action](dialog);
  });
  document.body.append(dialog);
  return dialog;
}

const actions = {
  before: (dialog) => turn(dialog, -1),
  after: (dialog) => turn(dialog, 1),
  close: (dialog) => dialog.close(),
  zoom: (dialog) => dialog.classList.toggle("full-size"),
  info: (dialog) => { const info = dialog.querySelector(".viewer-info"); info.hidden = !info.hidden; },
};

function send(dialog, place) {
  dialog.close();
  sendTo(place, pictures[index].infotext, address(pictures[index].url));
}

function turn(dialog, by) {
  index = (index + by + pictures.length) % pictures.length;
  show(dialog);
  onTurn(index);
}

function show(dialog) {
  const picture = pictures[index];
  const image = dialog.querySelector("img");
  image.src = address(picture.url);
  image.alt = `Picture ${index + 1} of ${pictures.length}`;
  dialog.querySelector(".viewer-place").innerHTML =
    `${index + 1} / ${pictures.length} <small>${picture.width}×${picture.height}${picture.seed ? ` · seed ${text(picture.seed)}` : ""}</small>`;
  const save = dialog.querySelector('[data-do="save"]');
  save.href = address(picture.url);
  save.download = "";
  dialog.querySelector(".viewer-info").textContent = picture.infotext;
  for (const button of dialog.querySelectorAll(".viewer-turn")) button.hidden = pictures.length < 2;
}

export function view(list, at, turned = () => {}) {
  [pictures, index, onTurn, returnTo] = [list, at, turned, document.activeElement];
  const dialog = element();
  dialog.classList.remove("full-size");
  show(dialog);
  if (!dialog.open) dialog.showModal();
  dialog.querySelector('[data-do="close"]').focus();
}

export function viewing() {
  return Boolean(document.getElementById("lightboxModal")?.open);
}
