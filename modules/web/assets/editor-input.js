// Mouse, pen, touch, wheel and keys: what they mean for the editor. `editor` is the element of editor.js.

const STEP = 1.15;
const KEYS = { b: "brush", e: "eraser", p: "pick", i: "invert", r: "fit", s: "full" };

export function listen(editor, stage, signal) {
  const held = { pointers: new Map(), pan: null, pinch: null, space: false, over: false };
  const on = (target, kinds, action, options = {}) => {
    for (const kind of kinds) target.addEventListener(kind, action, { signal, ...options });
  };
  on(stage, ["pointerdown"], (event) => pressed(editor, held, event));
  on(stage, ["pointermove"], (event) => moved(editor, held, event));
  on(stage, ["pointerup", "pointercancel"], (event) => released(editor, held, event));
  on(stage, ["pointerleave"], () => editor.hideRing());
  on(stage, ["wheel"], (event) => wheeled(editor, event), { passive: false });
  on(editor, ["pointerenter"], () => { held.over = true; });
  on(editor, ["pointerleave"], () => { held.over = false; });
  on(stage, ["auxclick", "contextmenu"], (event) => { if (editor.picture) event.preventDefault(); });
  // The window hears a key before the page's own shortcuts do.
  on(window, ["keydown"], (event) => { if (isMeant(editor, held, event)) keyed(editor, held, event); }, { capture: true });
  on(window, ["keyup", "blur"], (event) => { if (event.type === "blur" || event.code === "Space") held.space = false; });
  on(document, ["paste"], (event) => {
    const file = [...(event.clipboardData?.files || [])].find((one) => one.type.startsWith("image/"));
    if (file && isMeant(editor, held, event)) { event.preventDefault(); editor.choose(file); }
  });
}

function isMeant(editor, held, event) {
  const target = event.target?.nodeType === 1 ? event.target : document.body;
  const typing = target.closest("textarea, select, [contenteditable], input:not([type=range]):not([type=color]):not([type=file])");
  return !typing && editor.isShown() && (held.over || editor.contains(document.activeElement) || editor.isFull());
}

function place(stage, event) {
  const box = stage.getBoundingClientRect();
  const ratio = window.devicePixelRatio || 1;
  return { x: (event.clientX - box.left) * ratio, y: (event.clientY - box.top) * ratio };
}

function pressed(editor, held, event) {
  if (!editor.picture || editor.busy) return;
  const stage = event.currentTarget;
  const at = place(stage, event);
  stage.focus({ preventScroll: true });
  stage.setPointerCapture(event.pointerId);
  event.preventDefault();
  held.pointers.set(event.pointerId, at);
  if (held.pointers.size === 2) {
    editor.cancelStroke();
    held.pinch = spread(held);
  } else if (held.pointers.size === 1 && (event.button === 1 || held.space || !editor.layer)) {
    held.pan = event.pointerId;
    stage.classList.add("panning");
  } else if (held.pointers.size === 1 && isDrawing(event)) {
    editor.beginStroke(at, weight(event), { erase: event.button === 5 || event.button === 2, line: event.shiftKey });
  }
}

// The left or right button, a finger, a pen's tip or its eraser.
function isDrawing(event) {
  return [0, 2, 5].includes(event.button);
}

function moved(editor, held, event) {
  const stage = event.currentTarget;
  const at = place(stage, event);
  if (event.pointerType === "touch") editor.hideRing();
  else editor.showRing(at);
  if (!held.pointers.has(event.pointerId)) return;
  const before = held.pointers.get(event.pointerId);
  held.pointers.set(event.pointerId, at);
  if (held.pinch) {
    const now = spread(held);
    editor.moveView({ x: now.x - held.pinch.x, y: now.y - held.pinch.y });
    editor.zoomView(now, now.apart / Math.max(1, held.pinch.apart));
    held.pinch = now;
  } else if (held.pan === event.pointerId) {
    editor.moveView({ x: at.x - before.x, y: at.y - before.y });
  } else {
    const passed = event.getCoalescedEvents?.() || [];
    for (const one of passed.length ? passed : [event]) editor.goOn(place(stage, one), weight(one));
  }
}

function released(editor, held, event) {
  if (!held.pointers.delete(event.pointerId)) return;
  event.currentTarget.classList.remove("panning");
  if (held.pinch) {
    if (!held.pointers.size) held.pinch = null;
    else if (held.pointers.size > 1) held.pinch = spread(held);
  } else if (held.pan === event.pointerId) held.pan = null;
  else if (event.type === "pointercancel") editor.cancelStroke();
  else editor.endStroke();
}

// Middle and distance of two fingers; of one that is left, its place.
function spread({ pointers }) {
  const [one, other = one] = [...pointers.values()];
  return { x: (one.x + other.x) / 2, y: (one.y + other.y) / 2, apart: Math.hypot(one.x - other.x, one.y - other.y) };
}

// A pen's pressure changes the size of the brush; a mouse reports a half while a button is down.
function weight(event) {
  return event.pointerType === "pen" && event.pressure ? Math.max(0.05, event.pressure) : 1;
}

function wheeled(editor, event) {
  if (!editor.picture) return;
  const turn = event.deltaY || event.deltaX;
  if (event.shiftKey && editor.layer) {
    event.preventDefault();
    editor.resizeBrush(turn < 0 ? STEP : 1 / STEP);
  } else if (event.ctrlKey || event.metaKey || event.altKey || editor.isFull()) {
    event.preventDefault();
    editor.zoomView(place(event.currentTarget, event), Math.exp(-Math.max(-120, Math.min(120, turn)) / 400));
  }
}

function keyed(editor, held, event) {
  const action = meaning(editor, held, event);
  if (!action) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  action();
}

function meaning(editor, held, event) {
  const key = event.key.toLowerCase();
  const control = event.ctrlKey || event.metaKey;
  if (key === "escape" && editor.isFull()) return () => editor.act("full");
  if (!editor.picture || event.altKey) return null;
  if (control && editor.layer && (key === "z" || key === "y")) {
    return () => editor.act(key === "y" || event.shiftKey ? "redo" : "undo");
  }
  if (control) return null;
  if (event.code === "Space" && !event.target.closest?.("button")) return () => { held.space = true; };
  if (editor.layer && "[]".includes(key) && key) return () => editor.resizeBrush(key === "]" ? STEP : 1 / STEP);
  return editor.has(KEYS[key]) ? () => editor.act(KEYS[key]) : null;
}
