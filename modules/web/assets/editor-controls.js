// The editor's toolbar: which tools a mode has, their icons and names, and what is remembered of them.

const ICONS = {
  brush: "M14 4l6 6-8.5 8.5-6-6zM5.5 12.5 3 21l8.5-2.5",
  eraser: "M13 4l7 7-8 8H8l-4-4zM8.5 8.5l7 7M12 19h8",
  pick: "M14 6l4 4M12 8l4 4-7 7H5v-4zM15 5l2-2 4 4-2 2",
  undo: "M8 5 3 10l5 5M3 10h11a6 6 0 0 1 0 12h-3",
  redo: "M16 5l5 5-5 5M21 10H10a6 6 0 0 0 0 12h3",
  invert: "M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18",
  fill: "M5 12l7-7 7 7-7 7zM5 12h14M21 16v3",
  clear: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13",
  grow: "M9 3H3v6M15 21h6v-6M3 3l7 7M21 21l-7-7",
  shrink: "M4 10h6V4M20 14h-6v6M10 10 3 3M14 14l7 7",
  feather: "M20 4C12 4 7 9 7 16l-3 4M7 16c7 0 12-4 13-12M7 16h7",
  zoomOut: "M10 4a6 6 0 1 0 0 12 6 6 0 0 0 0-12M14.5 14.5 20 20M7 10h6",
  zoomIn: "M10 4a6 6 0 1 0 0 12 6 6 0 0 0 0-12M14.5 14.5 20 20M7 10h6M10 7v6",
  fit: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5M8 8h8v8H8z",
  full: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  open: "M3 6h6l2 3h10v10H3zM12 17v-5M9.5 14l2.5-2.5L14.5 14",
  remove: "M5 5l14 14M19 5 5 19",
};
const TITLES = {
  brush: "Brush (B)", eraser: "Eraser (E)", pick: "Pick a colour from the picture (P)",
  undo: "Undo (Ctrl+Z)", redo: "Redo (Ctrl+Shift+Z, Ctrl+Y)",
  invert: "Invert the mask (I)", fill: "Fill everything", clear: "Clear",
  grow: "Grow the mask", shrink: "Shrink the mask", feather: "Feather the mask's edge",
  zoomOut: "Zoom out (Ctrl+wheel)", zoomIn: "Zoom in (Ctrl+wheel)", fit: "Show the whole picture (R)",
  full: "Full screen (S)", open: "Choose another picture", remove: "Remove the picture",
};
const PAINT = ["brush", "eraser"];
const VIEW = ["zoomOut", "zoomIn", "fit", "full", "open", "remove"];
const TOOLS = {
  image: [VIEW],
  sketch: [[...PAINT, "pick"], ["undo", "redo", "fill", "clear"], VIEW],
  inpaint: [PAINT, ["undo", "redo", "invert", "fill", "clear"], ["grow", "shrink", "feather"], VIEW],
  inpaint_sketch: [[...PAINT, "pick"], ["undo", "redo", "fill", "clear"], VIEW],
};
const DEFAULTS = { size: 48, softness: 0, opacity: 1, color: "#dd4f33", tint: "#dd4f33", show: 0.6, amount: 8 };
const LIMITS = { size: [1, 2048], softness: [0, 1], opacity: [0.05, 1], show: [0.1, 1], amount: [1, 256] };
const KEY = "darkroom-editor";

// The layer that a mode paints on, as the stored form names it.
export const LAYERS = { image: "", sketch: "sketch", inpaint: "mask", inpaint_sketch: "sketch" };

export function markup(mode) {
  const groups = TOOLS[mode].map((tools) => `<div class="editor-group">${tools.map(button).join("")}${
    tools.includes("grow") ? number("amount", "Pixels to grow, shrink or feather by") : ""}</div>`);
  return `
    <div class="editor-bar" role="toolbar" aria-label="Tools" hidden>${groups.join("")}</div>
    <div class="editor-bar editor-sliders" hidden>${LAYERS[mode] ? sliders(mode) : ""}</div>
    <div class="editor-stage" tabindex="0" role="application" aria-label="${mode === "image" ? "Picture" : "Picture to paint on"}">
      <canvas class="editor-picture"></canvas><canvas class="editor-layer"></canvas><div class="editor-ring" hidden></div>
      <label class="drop"><input type="file" accept="image/*" aria-label="Choose a picture">
        <span class="hint"><b>Drop a picture here</b><br>paste it, or click to choose one</span></label>
      <div class="editor-busy" role="status" hidden>Working…</div></div>
    <div class="editor-foot"><span class="editor-size"></span><span class="editor-state" aria-live="polite"></span></div>`;
}

function sliders(mode) {
  const color = mode === "inpaint" ? "" : `<label title="Colour of the brush">Colour<input type="color" data-value="color"></label>`;
  const mask = mode === "inpaint" ? `<span class="editor-shown"><label title="Colour in which the mask is shown">Mask<input type="color" data-value="tint"></label>${
    range("show", "Shown", 0.1, 1, 0.05, "How strongly the mask is shown")}</span>` : "";
  return color + range("size", "Size", 0, 11, 0.05, "Size of the brush ([ and ], Shift+wheel)") + range("softness", "Softness", 0, 1, 0.05)
    + range("opacity", "Opacity", 0.05, 1, 0.05) + mask;
}

function button(name) {
  const pressed = PAINT.includes(name) || name === "pick" ? ' aria-pressed="false"' : "";
  return `<button type="button" class="editor-tool" data-do="${name}" title="${TITLES[name]}" aria-label="${TITLES[name]}"${pressed}>
    <svg viewBox="0 0 24 24" aria-hidden="true"><path d="${ICONS[name]}"/></svg></button>`;
}

function range(name, label, least, most, step, title = "") {
  return `<label title="${title}">${label}<input type="range" data-value="${name}" min="${least}" max="${most}" step="${step}"><output></output></label>`;
}

function number(name, label) {
  const [least, most] = LIMITS[name];
  return `<input type="number" class="editor-amount" data-value="${name}" min="${least}" max="${most}" title="${label}" aria-label="${label}"><span class="editor-unit">px</span>`;
}

// The sizes of brushes double along their slider.
export function fromControl(name, text) {
  if (!(name in LIMITS)) return text;
  const value = name === "size" ? 2 ** Number(text) : Number(text);
  return limited(name, value);
}

export function toControl(name, value) {
  return name === "size" ? Math.log2(value) : value;
}

export function shown(name, value) {
  return name === "size" ? `${Math.round(value)} px` : `${Math.round(value * 100)} %`;
}

export function limited(name, value) {
  const [least, most] = LIMITS[name];
  if (!Number.isFinite(value)) return DEFAULTS[name];
  const inside = Math.min(most, Math.max(least, value));
  return name === "amount" ? Math.round(inside) : inside;
}

// Brush sizes and colours outlive the page; a browser that keeps nothing starts with the usual ones.
export function remembered() {
  try {
    return { ...DEFAULTS, ...JSON.parse(localStorage.getItem(KEY) || "{}") };
  } catch {
    return { ...DEFAULTS };
  }
}

export function remember(values) {
  try {
    localStorage.setItem(KEY, JSON.stringify(values));
  } catch {
    // Private windows refuse; the values last as long as the page then.
  }
}
