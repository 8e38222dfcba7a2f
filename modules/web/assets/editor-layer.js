// A layer of paint as large as its picture, in tiles: where nothing is painted there is none.
// Tiles are never changed once a step has ended; a step keeps those it replaced, so undo exchanges references.

import { clipped, united } from "./editor-view.js";

export const TILE = 256;

export class Layer {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.columns = Math.ceil(width / TILE);
    this.rows = Math.ceil(height / TILE);
    this.tiles = new Map();
    this.step = new Map();
  }

  rect(key) {
    const x = (key % this.columns) * TILE;
    const y = Math.floor(key / this.columns) * TILE;
    return { x, y, width: Math.min(TILE, this.width - x), height: Math.min(TILE, this.height - y) };
  }

  // The tiles that `rect` (inside the layer) touches.
  keys({ x, y, width, height } = { x: 0, y: 0, width: this.width, height: this.height }) {
    const found = [];
    for (let row = Math.floor(y / TILE); row * TILE < y + height; row += 1) {
      for (let column = Math.floor(x / TILE); column * TILE < x + width; column += 1) found.push(row * this.columns + column);
    }
    return found;
  }

  // A tile that may be painted on until the step ends.
  touch(key) {
    const before = this.tiles.get(key) || null;
    if (!this.step.has(key)) this.replace(key, copied(this.rect(key), before));
    return context(this.tiles.get(key));
  }

  replace(key, tile) {
    if (!this.step.has(key)) this.step.set(key, this.tiles.get(key) || null);
    if (tile) this.tiles.set(key, tile);
    else this.tiles.delete(key);
  }

  // What the step replaced, or null where it did nothing.
  end() {
    const { step } = this;
    this.step = new Map();
    return step.size ? step : null;
  }

  // Exchanges the layer's tiles with those of `step`; doing it again undoes it. Returns the rectangle that changed.
  swap(step) {
    let dirty = null;
    for (const [key, tile] of step) {
      step.set(key, this.tiles.get(key) || null);
      if (tile) this.tiles.set(key, tile);
      else this.tiles.delete(key);
      dirty = united(dirty, this.rect(key));
    }
    return dirty;
  }

  pixels(key) {
    const { width, height } = this.rect(key);
    const tile = this.tiles.get(key);
    return tile ? context(tile).getImageData(0, 0, width, height) : new ImageData(width, height);
  }

  fill(color) {
    for (const key of this.keys()) this.replace(key, filled(this.rect(key), color));
  }

  clear() {
    for (const key of [...this.tiles.keys()]) this.replace(key, null);
  }

  invert() {
    for (const key of this.keys()) {
      const tile = filled(this.rect(key), "#fff");
      const before = this.tiles.get(key);
      const canvas = context(tile);
      canvas.globalCompositeOperation = "destination-out";
      if (before) canvas.drawImage(before, 0, 0);
      canvas.globalCompositeOperation = "source-over";
      this.replace(key, tile);
    }
  }

  // A rectangle around all paint, in whole tiles, or null.
  bounds() {
    let found = null;
    for (const key of this.tiles.keys()) if (painted(this.pixels(key))) found = united(found, this.rect(key));
    return found;
  }

  empty() {
    for (const key of this.tiles.keys()) if (painted(this.pixels(key))) return false;
    return true;
  }

  // The alpha in `rect`, row by row.
  alpha(rect) {
    const found = new Uint8Array(rect.width * rect.height);
    this.each(rect, (words, from, to, length) => {
      for (let index = 0; index < length; index += 1) found[to + index] = words[from + index] >>> 24;
    });
    return found;
  }

  setAlpha(rect, alpha) {
    this.each(rect, (words, from, to, length) => {
      for (let index = 0; index < length; index += 1) words[from + index] = white(alpha[to + index]);
    }, (key, pixels) => this.touch(key).putImageData(pixels, 0, 0));
  }

  // Calls `visit` for each run of pixels within `rect`: words of the tile, place in them, place in `rect`, length.
  each(rect, visit, leave = () => {}) {
    for (const key of this.keys(rect)) {
      const tile = this.rect(key);
      const pixels = this.pixels(key);
      const words = wordsOf(pixels);
      const part = clipped({ ...rect, x: rect.x - tile.x, y: rect.y - tile.y }, tile);
      for (let y = part.y; y < part.y + part.height; y += 1) {
        visit(words, y * tile.width + part.x, (tile.y + y - rect.y) * rect.width + tile.x + part.x - rect.x, part.width);
      }
      leave(key, pixels);
    }
  }

  // A PNG: the paint itself, or with `mask` its alpha as white on black.
  async png(mask) {
    const canvas = surface(this.width, this.height);
    const target = canvas.getContext("2d", { willReadFrequently: true, alpha: !mask });
    for (const [key, tile] of this.tiles) target.drawImage(tile, this.rect(key).x, this.rect(key).y);
    const blob = await new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
    if (!blob) throw { message: "The browser could not encode what was painted.", hint: "The picture may be too large for it." };
    return blob;
  }
}

// The layer that a stored picture shows; with `mask` its brightness, on black, is the layer's alpha.
export function layerOf(bitmap, mask) {
  const layer = new Layer(bitmap.width, bitmap.height);
  for (const key of layer.keys()) {
    const { x, y, width, height } = layer.rect(key);
    const tile = surface(width, height);
    const target = context(tile);
    if (mask) target.fillRect(0, 0, width, height);
    target.drawImage(bitmap, x, y, width, height, 0, 0, width, height);
    const pixels = target.getImageData(0, 0, width, height);
    if (mask) brightnessToAlpha(pixels);
    if (!painted(pixels)) continue;
    target.putImageData(pixels, 0, 0);
    layer.tiles.set(key, tile);
  }
  return layer;
}

// Pixels as words of alpha, blue, green, red: all browsers run on little-endian processors.
function wordsOf({ data }) {
  return new Uint32Array(data.buffer);
}

function white(alpha) {
  return ((alpha << 24) | 0xffffff) >>> 0;
}

function brightnessToAlpha(pixels) {
  const words = wordsOf(pixels);
  for (let index = 0; index < words.length; index += 1) words[index] = white(words[index] & 0xff);
}

function painted(pixels) {
  const words = wordsOf(pixels);
  for (let index = 0; index < words.length; index += 1) if (words[index] >>> 24) return true;
  return false;
}

function copied({ width, height }, tile) {
  const copy = surface(width, height);
  if (tile) context(copy).drawImage(tile, 0, 0);
  return copy;
}

function filled({ width, height }, color) {
  const tile = surface(width, height);
  const target = context(tile);
  target.fillStyle = color;
  target.fillRect(0, 0, width, height);
  return tile;
}

function surface(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

function context(canvas) {
  return canvas.getContext("2d", { willReadFrequently: true });
}
