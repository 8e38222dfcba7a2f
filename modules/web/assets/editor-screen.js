// What is seen of a picture and its layer: two canvases of the stage's size, redrawn where something changed.

import { clipped, onScreen, united, widened } from "./editor-view.js";

export class Screen {
  constructor(stage) {
    this.stage = stage;
    this.below = stage.querySelector(".editor-picture");
    this.above = stage.querySelector(".editor-layer");
    this.picture = this.layer = this.tint = null;
    this.view = { scale: 1, x: 0, y: 0 };
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(this.stage.clientWidth * ratio), Math.round(this.stage.clientHeight * ratio)];
    for (const canvas of [this.below, this.above]) Object.assign(canvas, { width, height });
    this.stalePicture = true;
    this.paintAll();
  }

  room() {
    return { width: this.below.width, height: this.below.height };
  }

  look(view) {
    this.view = view;
    this.stalePicture = true;
    this.paintAll();
  }

  // Shows the layer in one colour, `opacity` of it.
  shine(tint, opacity) {
    this.tint = tint;
    this.above.style.opacity = opacity;
  }

  // The brush of `size` pixels at a place of the screen, or none.
  ring(at, size = 0) {
    const ring = this.stage.querySelector(".editor-ring");
    ring.hidden = !at;
    if (!at) return;
    const ratio = window.devicePixelRatio || 1;
    const across = Math.max(2, (size * this.view.scale) / ratio);
    ring.style.width = ring.style.height = `${across}px`;
    ring.style.transform = `translate(${at.x / ratio - across / 2}px, ${at.y / ratio - across / 2}px)`;
  }

  // The colour at a place of the screen, as #rrggbb.
  color(at) {
    const spot = document.createElement("canvas");
    spot.width = spot.height = 1;
    const target = spot.getContext("2d");
    for (const canvas of [this.below, this.above]) {
      target.drawImage(canvas, Math.floor(at.x), Math.floor(at.y), 1, 1, 0, 0, 1, 1);
    }
    const channels = [...target.getImageData(0, 0, 1, 1).data].slice(0, 3);
    return `#${channels.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
  }

  paintAll() {
    this.paint({ x: 0, y: 0, width: this.picture?.width || 1, height: this.picture?.height || 1 }, true);
  }

  // Draws `rect` of the layer, or all there is, with the next frame; several changes are drawn at once.
  paint(rect, whole = false) {
    if (!rect) return;
    this.stale = united(this.stale, rect);
    this.whole ||= whole;
    this.frame ||= requestAnimationFrame(() => {
      const { stale } = this;
      const area = this.whole ? { x: 0, y: 0, ...this.room() } : widened(onScreen(this.view, stale), 2);
      this.frame = 0;
      this.stale = null;
      this.whole = false;
      if (this.stalePicture || !this.picture) this.drawPicture();
      this.drawLayer(stale, area);
    });
  }

  drawPicture() {
    const { width, height } = this.room();
    const target = this.below.getContext("2d");
    this.stalePicture = false;
    target.clearRect(0, 0, width, height);
    if (!this.picture) return;
    const to = onScreen(this.view, { x: 0, y: 0, width: this.picture.width, height: this.picture.height });
    target.imageSmoothingEnabled = this.view.scale < 2;
    target.imageSmoothingQuality = "high";
    target.drawImage(this.picture.bitmap, to.x, to.y, to.width, to.height);
  }

  drawLayer(rect, area) {
    const target = this.above.getContext("2d");
    target.save();
    target.beginPath();
    target.rect(area.x, area.y, area.width, area.height);
    target.clip();
    target.clearRect(area.x, area.y, area.width, area.height);
    target.imageSmoothingEnabled = this.view.scale < 2;
    if (this.layer) this.drawTiles(target, rect, area);
    target.restore();
  }

  drawTiles(target, rect, area) {
    // The area reaches two pixels of the screen beyond the change, which may lie on further tiles.
    const near = clipped(widened(rect, 3 / this.view.scale), this.layer);
    for (const key of near ? this.layer.keys(near) : []) {
      const tile = this.layer.tiles.get(key);
      const to = onScreen(this.view, this.layer.rect(key));
      if (tile && to.width && to.height && clipped({ ...to, x: to.x - area.x, y: to.y - area.y }, area)) {
        target.drawImage(tile, to.x, to.y, to.width, to.height);
      }
    }
    if (!this.tint) return;
    target.globalCompositeOperation = "source-in";
    target.fillStyle = this.tint;
    target.fillRect(area.x, area.y, area.width, area.height);
  }
}
