// The brush: how much of each pixel a stroke covers, and what that does to the paint that was there before it.
// A stroke covers a pixel once, however often it passes, so its opacity is the same everywhere.

import { TILE } from "./editor-layer.js";
import { clipped, united } from "./editor-view.js";

export function beginStroke() {
  return { covers: new Map(), before: new Map() };
}

// Draws from `from` to `to` (x, y, radius in pixels of the picture) and returns the rectangle that changed, or null.
// `ink` = { color: [red, green, blue], opacity: 0..1, softness: 0..1, erase }.
export function drawSegment(layer, stroke, from, to, ink) {
  const rect = clipped(united(around(from), around(to)), layer);
  if (!rect) return null;
  for (const key of layer.keys(rect)) {
    const tile = layer.rect(key);
    const part = clipped({ ...rect, x: rect.x - tile.x, y: rect.y - tile.y }, tile);
    if (!part) continue;
    if (!stroke.covers.has(key)) {
      stroke.covers.set(key, new Uint8Array(TILE * TILE));
      stroke.before.set(key, layer.pixels(key));
    }
    const local = (point) => ({ ...point, x: point.x - tile.x, y: point.y - tile.y });
    coverCapsule(stroke.covers.get(key), part, local(from), local(to), ink.softness);
    layer.touch(key).putImageData(inked(stroke.before.get(key), stroke.covers.get(key), part, ink), part.x, part.y);
  }
  return rect;
}

// Raises `cover` (rows of TILE, 0..255) within `part` to the coverage of a round brush moved from one point to the
// other, its radius changing evenly. The edge is one pixel wide, or as wide as `softness` of the radius.
export function coverCapsule(cover, part, from, to, softness) {
  const [dx, dy, dr] = [to.x - from.x, to.y - from.y, to.radius - from.radius];
  const length = dx * dx + dy * dy;
  for (let y = part.y; y < part.y + part.height; y += 1) {
    for (let x = part.x; x < part.x + part.width; x += 1) {
      const [px, py] = [x + 0.5 - from.x, y + 0.5 - from.y];
      const along = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 1;
      const radius = from.radius + dr * along;
      const distance = Math.hypot(px - dx * along, py - dy * along);
      const inside = (radius + 0.5 - distance) / (radius * softness + 1);
      if (inside <= 0) continue;
      const value = Math.round(255 * eased(Math.min(1, inside), softness));
      if (value > cover[y * TILE + x]) cover[y * TILE + x] = value;
    }
  }
}

function eased(value, softness) {
  return softness ? value * value * (3 - 2 * value) : value;
}

function around({ x, y, radius }) {
  return { x: x - radius - 1, y: y - radius - 1, width: 2 * radius + 2, height: 2 * radius + 2 };
}

// The pixels of `part` after the stroke: over what was there, or taken away from it.
function inked(before, cover, part, ink) {
  const result = new ImageData(part.width, part.height);
  for (let y = 0; y < part.height; y += 1) {
    for (let x = 0; x < part.width; x += 1) {
      const share = (cover[(part.y + y) * TILE + part.x + x] / 255) * ink.opacity;
      const from = ((part.y + y) * before.width + part.x + x) * 4;
      (ink.erase ? taken : put)(result.data, (y * part.width + x) * 4, before.data, from, share, ink.color);
    }
  }
  return result;
}

function taken(to, at, from, index, share) {
  for (let channel = 0; channel < 3; channel += 1) to[at + channel] = from[index + channel];
  to[at + 3] = from[index + 3] * (1 - share);
}

// Porter-Duff "over" with straight alpha.
function put(to, at, from, index, share, color) {
  const below = (from[index + 3] / 255) * (1 - share);
  const alpha = share + below;
  if (!alpha) return;
  for (let channel = 0; channel < 3; channel += 1) {
    to[at + channel] = (color[channel] * share + from[index + channel] * below) / alpha;
  }
  to[at + 3] = alpha * 255;
}
