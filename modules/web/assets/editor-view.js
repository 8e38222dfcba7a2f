// Where the picture lies on the screen: `view` = { scale, x, y }; screen = picture * scale + offset, in device pixels.

const MOST = 64;
const KEPT = 48;

export function fitted(stage, picture) {
  const scale = Math.min(stage.width / picture.width, stage.height / picture.height, MOST);
  return { scale, x: (stage.width - picture.width * scale) / 2, y: (stage.height - picture.height * scale) / 2 };
}

// Zooms by `factor` so that the point of the picture under `at` stays there.
export function zoomed(view, at, factor, stage, picture) {
  const least = Math.min(fitted(stage, picture).scale, 1) / 2;
  const scale = Math.min(MOST, Math.max(least, view.scale * factor));
  const by = scale / view.scale;
  return held({ scale, x: at.x - (at.x - view.x) * by, y: at.y - (at.y - view.y) * by }, stage, picture);
}

export function moved(view, by, stage, picture) {
  return held({ ...view, x: view.x + by.x, y: view.y + by.y }, stage, picture);
}

export function toPicture(view, at) {
  return { x: (at.x - view.x) / view.scale, y: (at.y - view.y) / view.scale };
}

// A rectangle of the picture on the screen, in whole pixels: neighbours share their edge, so there is no seam.
export function onScreen(view, { x, y, width, height }) {
  const left = Math.round(view.x + x * view.scale);
  const top = Math.round(view.y + y * view.scale);
  return {
    x: left, y: top,
    width: Math.round(view.x + (x + width) * view.scale) - left,
    height: Math.round(view.y + (y + height) * view.scale) - top,
  };
}

export function united(one, other) {
  if (!one || !other) return one || other;
  const x = Math.min(one.x, other.x);
  const y = Math.min(one.y, other.y);
  return {
    x, y,
    width: Math.max(one.x + one.width, other.x + other.width) - x,
    height: Math.max(one.y + one.height, other.y + other.height) - y,
  };
}

// The whole pixels of `rect` that lie within 0..width, 0..height, or null.
export function clipped(rect, { width, height }) {
  const x = Math.max(0, Math.floor(rect.x));
  const y = Math.max(0, Math.floor(rect.y));
  const right = Math.min(width, Math.ceil(rect.x + rect.width));
  const bottom = Math.min(height, Math.ceil(rect.y + rect.height));
  return right > x && bottom > y ? { x, y, width: right - x, height: bottom - y } : null;
}

export function widened({ x, y, width, height }, by) {
  return { x: x - by, y: y - by, width: width + 2 * by, height: height + 2 * by };
}

// A part of the picture always stays in sight.
function held(view, stage, picture) {
  const kept = (offset, length, room) => Math.min(room - KEPT, Math.max(KEPT - length, offset));
  return {
    ...view, x: kept(view.x, picture.width * view.scale, stage.width), y: kept(view.y, picture.height * view.scale, stage.height),
  };
}
