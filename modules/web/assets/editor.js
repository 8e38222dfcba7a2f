// <darkroom-editor tab="img2img" mode="image|sketch|inpaint|inpaint_sketch">: a picture and what is painted over it.
// Both lie on the server, their ids in the tab's stored form, from which every editor of a tab shows the same.

import { address, attempt, call, complain } from "./api.js";
import { beginStroke, drawSegment } from "./editor-brush.js";
import { LAYERS, fromControl, limited, markup, remember, remembered, shown, toControl } from "./editor-controls.js";
import { History } from "./editor-history.js";
import { listen } from "./editor-input.js";
import { Layer, layerOf } from "./editor-layer.js";
import { reach } from "./editor-mask.js";
import { Screen } from "./editor-screen.js";
import { clipped, fitted, moved, toPicture, widened, zoomed } from "./editor-view.js";

const DELAY = 400;
const AGAIN = 5000;
const NEWS = "darkroom:inputs";

class Editor extends HTMLElement {
  connectedCallback() {
    this.tab = this.getAttribute("tab") || "img2img";
    this.mode = this.getAttribute("mode") in LAYERS ? this.getAttribute("mode") : "image";
    this.field = (this.mode === "image" && this.getAttribute("field")) || "init_image";
    this.name = LAYERS[this.mode];
    this.values = remembered();
    this.tool = "brush";
    this.picture = this.layer = this.stroke = this.dirty = this.turn = null;
    this.layerId = "";
    this.innerHTML = markup(this.mode);
    this.stage = this.part(".editor-stage");
    this.screen = new Screen(this.stage);
    this.showValues();
    this.gone = new AbortController();
    listen(this, this.stage, this.gone.signal);
    this.listenToControls(this.gone.signal);
    this.seen = new ResizeObserver(() => this.resized());
    this.seen.observe(this.stage);
  }

  disconnectedCallback() {
    if (this.dirty) attempt(() => this.flush());
    this.gone.abort();
    this.seen.disconnect();
  }

  part(selector) {
    return this.querySelector(selector);
  }

  has(action) {
    return Boolean(action && this.part(`[data-do="${action}"]`));
  }

  isShown() {
    return this.stage.clientWidth > 0;
  }

  isFull() {
    return this.classList.contains("full");
  }

  listenToControls(signal) {
    const on = (target, kind, action) => target.addEventListener(kind, action, { signal });
    const drop = this.part(".drop");
    on(this, "click", (event) => {
      const action = event.target.closest("[data-do]")?.dataset.do;
      if (action) this.act(action);
    });
    on(this, "input", (event) => this.valueChanged(event.target));
    on(this.part('input[type="file"]'), "change", ({ target }) => { this.choose(target.files[0]); target.value = ""; });
    on(this.stage, "dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
    on(this.stage, "dragleave", () => drop.classList.remove("over"));
    on(this.stage, "drop", (event) => {
      event.preventDefault();
      event.stopPropagation();
      drop.classList.remove("over");
      this.choose(event.dataTransfer.files[0]);
    });
    on(document, "fullscreenchange", () => { if (!document.fullscreenElement && this.real) this.full(false); });
    on(document, NEWS, ({ detail }) => { if (detail.tab === this.tab && detail.from !== this) this.follow(detail.ids); });
    on(document, "visibilitychange", () => { if (document.hidden && this.dirty) attempt(() => this.flush()); });
  }

  // Values of the brush

  valueChanged({ dataset, value }) {
    if (!dataset.value) return;
    this.values[dataset.value] = fromControl(dataset.value, value);
    if (dataset.value === "color") this.takeTool("brush");
    this.showValues(dataset.value === "amount");
  }

  showValues(typing = false) {
    remember(this.values);
    for (const control of this.querySelectorAll("[data-value]")) {
      const name = control.dataset.value;
      if (!typing) control.value = toControl(name, this.values[name]);
      control.style.setProperty("--range_progress", `${100 * (control.value - control.min) / (control.max - control.min)}%`);
      const output = control.parentElement.querySelector("output");
      if (output) output.textContent = shown(name, this.values[name]);
    }
    for (const name of ["brush", "eraser", "pick"]) this.part(`[data-do="${name}"]`)?.setAttribute("aria-pressed", name === this.tool);
    if (this.mode === "inpaint") this.screen.shine(this.values.tint, this.values.show);
    this.screen.paintAll();
  }

  takeTool(tool) {
    this.tool = tool;
    this.showValues();
  }

  resizeBrush(factor) {
    const larger = this.values.size * factor;
    this.values.size = limited("size", factor > 1 ? Math.max(larger, this.values.size + 1) : larger);
    this.showValues();
    if (this.ringAt) this.showRing(this.ringAt);
  }

  // Actions

  act(action) {
    const { width, height } = this.screen.room();
    const middle = { x: width / 2, y: height / 2 };
    const actions = {
      brush: () => this.takeTool("brush"), eraser: () => this.takeTool("eraser"), pick: () => this.takeTool("pick"),
      undo: () => this.turnBack(this.history?.undo()), redo: () => this.turnBack(this.history?.redo()),
      invert: () => this.change((layer) => layer.invert()), clear: () => this.change((layer) => layer.clear()),
      fill: () => this.change((layer) => layer.fill(this.mode === "inpaint" ? "#fff" : this.values.color)),
      grow: () => this.filter("grow"), shrink: () => this.filter("shrink"), feather: () => this.filter("feather"),
      zoomIn: () => this.zoomView(middle, 1.4), zoomOut: () => this.zoomView(middle, 1 / 1.4), fit: () => this.fit(),
      full: () => this.full(!this.isFull()), remove: () => this.write({ ...(this.field === "init_image" && { mask: "", sketch: "" }), [this.field]: "" }),
      open: () => this.part('input[type="file"]').click(),
    };
    if (!this.busy) actions[action]?.();
  }

  change(action) {
    if (!this.layer || this.stroke) return;
    action(this.layer);
    this.endStep();
    this.screen.paintAll();
  }

  endStep() {
    const step = this.layer.end();
    if (!step) return;
    this.history.add(step);
    this.touched();
  }

  turnBack(step) {
    if (!step || this.stroke) return;
    this.screen.paint(this.layer.swap(step));
    this.touched();
  }

  async filter(kind) {
    const { layer, values: { amount } } = this;
    const bounds = !this.stroke && layer?.bounds();
    if (!bounds) return;
    const rect = clipped(widened(bounds, reach(kind, amount)), layer);
    this.setBusy(true);
    const alpha = await attempt(() => worked({ kind, alpha: layer.alpha(rect), width: rect.width, height: rect.height, amount }));
    this.setBusy(false);
    if (alpha && layer === this.layer) this.change(() => layer.setAlpha(rect, alpha));
  }

  setBusy(busy) {
    this.busy = busy;
    this.part(".editor-busy").hidden = !busy;
  }

  // Where the browser has no full screen for elements (iPhone), the editor covers the window.
  full(wanted) {
    this.classList.toggle("full", wanted);
    this.part('[data-do="full"]').setAttribute("aria-pressed", wanted);
    if (!wanted) {
      if (this.real && document.fullscreenElement) document.exitFullscreen();
      this.real = false;
    } else if (this.requestFullscreen) {
      this.requestFullscreen().then(() => { this.real = true; }, () => { this.real = false; });
    }
    this.stage.focus({ preventScroll: true });
  }

  // Strokes

  beginStroke(at, weight, { erase, line }) {
    if (this.tool === "pick") { this.pick(at); return; }
    const from = line && this.last ? this.last : at;
    this.stroke = { ...beginStroke(), erase: erase || this.tool === "eraser", at: this.point(from, weight) };
    this.goOn(at, weight);
  }

  goOn(at, weight) {
    if (!this.stroke) return;
    const to = this.point(at, weight);
    this.screen.paint(drawSegment(this.layer, this.stroke, this.stroke.at, to, this.ink()));
    this.stroke.at = to;
    this.last = at;
  }

  endStroke() {
    if (!this.stroke) return;
    this.stroke = null;
    this.endStep();
  }

  cancelStroke() {
    if (!this.stroke) return;
    this.stroke = null;
    const step = this.layer.end();
    if (step) this.screen.paint(this.layer.swap(step));
  }

  point(at, weight) {
    return { ...toPicture(this.screen.view, at), radius: Math.max(0.5, (this.values.size * weight) / 2) };
  }

  ink() {
    const { color, opacity, softness } = this.values;
    const channels = this.mode === "inpaint" ? [255, 255, 255] : [1, 3, 5].map((index) => parseInt(color.slice(index, index + 2), 16));
    return { color: channels, opacity, softness, erase: this.stroke.erase };
  }

  // Takes the colour that is seen: the picture with the paint over it.
  pick(at) {
    this.values.color = this.screen.color(at);
    this.takeTool("brush");
  }

  // View

  resized() {
    const appeared = this.isShown() && !this.visible;
    this.visible = this.isShown();
    if (!this.visible) { if (this.dirty) attempt(() => this.flush()); return; }
    this.screen.resize();
    this.fit();
    if (appeared) attempt(() => this.refresh());
  }

  fit() {
    if (this.picture) this.look(fitted(this.screen.room(), this.picture));
  }

  zoomView(at, factor) {
    if (this.picture) this.look(zoomed(this.screen.view, at, factor, this.screen.room(), this.picture));
  }

  moveView(by) {
    if (this.picture) this.look(moved(this.screen.view, by, this.screen.room(), this.picture));
  }

  look(view) {
    this.part(".editor-size").textContent = `${this.picture.width}×${this.picture.height} · ${Math.round(view.scale * 100)} %`;
    this.screen.look(view);
    if (this.ringAt) this.showRing(this.ringAt);
  }

  showRing(at) {
    this.ringAt = at;
    this.stage.classList.toggle("picking", this.tool === "pick");
    this.screen.ring(this.layer && this.tool !== "pick" ? at : null, this.values.size);
  }

  hideRing() {
    this.ringAt = null;
    this.screen.ring(null);
  }

  // Storage

  async choose(file) {
    if (!file) return;
    this.setBusy(true);
    await attempt(async () => this.load((await call("inputs", file, true)).id));
    this.setBusy(false);
  }

  // Shows the stored picture `id` and writes it into the form. What is painted stays where its size fits.
  load(id) {
    return this.write({ [this.field]: id });
  }

  async write(values) {
    await this.flush().catch(complain);
    const ids = await attempt(() => call(`forms/${this.tab}`, values));
    if (!ids) return;
    this.dirty = false;
    await this.adopt(ids);
    this.tell(ids);
  }

  tell(ids) {
    document.dispatchEvent(new CustomEvent(NEWS, { detail: { tab: this.tab, from: this, ids } }));
    this.dispatchEvent(new CustomEvent("change", { bubbles: true, detail: { ids, picture: this.size() } }));
  }

  size() {
    return this.picture ? { width: this.picture.width, height: this.picture.height } : null;
  }

  // Shows what the stored form says, unless something is being painted or not stored yet.
  async refresh() {
    if (this.dirty || this.stroke || this.storing) return;
    await this.adopt(await call(`forms/${this.tab}`));
  }

  follow(ids) {
    if (this.isShown() && !this.dirty && !this.stroke) attempt(() => this.adopt(ids));
  }

  async adopt(ids) {
    const turn = this.turn = (this.turn || 0) + 1;
    const [pictureId, layerId] = [ids[this.field], this.name ? ids[this.name] : ""];
    const same = pictureId === (this.picture?.id || "");
    if (same && layerId === this.layerId) return;
    const bitmap = same ? this.picture?.bitmap : pictureId && await bitmapOf(pictureId);
    const paint = pictureId && layerId ? await bitmapOf(layerId) : null;
    if (turn !== this.turn || this.dirty || this.stroke) return;
    this.showPicture(pictureId ? { id: pictureId, bitmap, width: bitmap.width, height: bitmap.height } : null, same);
    this.showLayer(paint, layerId);
  }

  showPicture(picture, same) {
    if (!same) this.picture?.bitmap.close();
    this.picture = this.screen.picture = picture;
    this.part(".drop").hidden = Boolean(picture);
    for (const bar of this.querySelectorAll(".editor-bar")) bar.hidden = !picture;
    this.classList.toggle("filled", Boolean(picture));
    if (!picture) this.part(".editor-size").textContent = "";
    if (!same) { this.last = null; this.screen.resize(); this.fit(); }
    if (this.field === "init_image") document.dispatchEvent(new CustomEvent("darkroom:picture", { detail: this.size() }));
  }

  showLayer(paint, id) {
    this.hideRing();
    this.layer = this.screen.layer = this.history = null;
    this.layerId = id;
    this.state("");
    if (!this.picture || !this.name) return;
    const fits = paint && paint.width === this.picture.width && paint.height === this.picture.height;
    this.layer = this.screen.layer = fits ? layerOf(paint, this.mode === "inpaint") : new Layer(this.picture.width, this.picture.height);
    this.history = new History();
    this.showHistory();
    this.screen.paintAll();
    this.foreign = Boolean(paint && !fits);
  }

  // Says which of undo and redo there is something for; disabled buttons would swallow the keys.
  showHistory() {
    for (const [action, steps] of [["undo", this.history?.done], ["redo", this.history?.undone]]) {
      this.part(`[data-do="${action}"]`)?.setAttribute("aria-disabled", !steps?.length);
    }
  }

  touched() {
    this.dirty = true;
    this.showHistory();
    this.state("Not stored yet");
    clearTimeout(this.later);
    this.later = setTimeout(() => this.flush().catch(complain), DELAY);
  }

  // Resolves once what is seen is on the server and in the form; rejects with { message, hint }. Stored paint for a
  // picture of another size is not seen, so the form loses it here, but not by merely looking.
  saved() {
    this.dirty ||= this.foreign && this.isShown();
    return this.flush();
  }

  flush() {
    clearTimeout(this.later);
    this.storing ||= this.store().finally(() => { this.storing = null; });
    return this.storing;
  }

  async store() {
    while (this.dirty) {
      const { layer } = this;
      this.dirty = this.foreign = false;
      this.state("Storing…");
      try {
        const id = layer.empty() ? "" : (await call("inputs", await layer.png(this.mode === "inpaint"), true)).id;
        if (layer !== this.layer) return;
        const ids = await call(`forms/${this.tab}`, { [this.name]: id });
        this.layerId = id;
        this.state("Stored");
        this.tell(ids);
      } catch (error) {
        this.dirty = true;
        this.state("Not stored");
        this.later = setTimeout(() => this.flush().catch(() => {}), AGAIN);
        throw error;
      }
    }
  }

  state(text) {
    this.part(".editor-state").textContent = text;
  }
}

async function bitmapOf(id) {
  const answer = await fetch(address(`darkroom/page/inputs/${id}`)).catch(() => null);
  if (!answer?.ok) throw { message: "The picture could not be fetched from the server.", hint: "Choose it again." };
  // Numbers, not colours: a profile of the screen must not change a mask.
  return createImageBitmap(await answer.blob(), { colorSpaceConversion: "none" });
}

function worked(task) {
  const worker = new Worker(new URL("./editor-worker.js", import.meta.url), { type: "module" });
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = () => reject({ message: "The mask could not be changed.", hint: "The browser may lack memory for it." });
    worker.postMessage(task, [task.alpha.buffer]);
  }).finally(() => worker.terminate());
}

customElements.define("darkroom-editor", Editor);
