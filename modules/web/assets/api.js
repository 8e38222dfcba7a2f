// Calls to the page's own routes, and messages to the person in front of it.

export const root = new URL("../../../", import.meta.url);

export function address(path) {
  return new URL(path, root).href;
}

export async function call(path, body, raw = false) {
  const options = { headers: { "x-darkroom": "page" }, cache: "no-store" };
  if (body !== undefined) {
    options.method = "POST";
    options.body = raw ? body : JSON.stringify(body);
    options.headers["content-type"] = raw ? "application/octet-stream" : "application/json";
  }
  let response;
  try {
    response = await fetch(address(`darkroom/page/${path}`), options);
  } catch {
    throw { message: "The server does not answer.", hint: "Look at the terminal it was started from." };
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw { message: answer.message || readable(answer.detail) || response.statusText, hint: answer.hint || "" };
  return answer;
}

function readable(detail) {
  return Array.isArray(detail) ? detail.map((item) => item.msg).join("; ") : detail;
}

export function text(value) {
  const holder = document.createElement("span");
  holder.textContent = value ?? "";
  return holder.innerHTML.replaceAll('"', "&quot;");
}

export function toast(message, hint = "", kind = "error") {
  let list = document.getElementById("toasts");
  if (!list) {
    list = document.createElement("div");
    list.id = "toasts";
    list.setAttribute("aria-live", "assertive");
    document.body.append(list);
  }
  const item = document.createElement("div");
  item.className = `toast ${kind}`;
  item.setAttribute("role", kind === "error" ? "alert" : "status");
  item.innerHTML = `<div><b>${text(message)}</b>${hint ? `<p>${text(hint)}</p>` : ""}</div><button type="button" aria-label="Close">×</button>`;
  for (const other of list.children) if (other.textContent === item.textContent) other.remove();
  const close = () => item.remove();
  item.querySelector("button").addEventListener("click", close);
  list.append(item);
  setTimeout(close, kind === "error" ? 12000 : 6000);
}

export function complain(error) {
  toast(error.message || String(error), error.hint || "");
}

export async function attempt(action) {
  try {
    return await action();
  } catch (error) {
    complain(error);
    return null;
  }
}

function tab(name, among = '[role="tab"]') {
  return [...document.querySelectorAll(among)].find((one) => one.textContent.trim() === name);
}

export function openTab(name) {
  const found = tab(name);
  if (found) return found.click();
  // On a narrow screen the last tabs are in a menu.
  document.querySelector(".overflow-menu > button")?.click();
  requestAnimationFrame(() => tab(name, ".overflow-dropdown button")?.click());
  return undefined;
}

// Writes an infotext into the stored form of a tab, which shows it when it opens, or again if it is open. `given` may
// name the picture to begin with (`init_image`, its id) and what to do with it (`mode`).
export async function sendToForm(name, infotext, given = {}) {
  const answer = await attempt(() => call("paste", { tab: name, infotext, ...given }));
  if (!answer) return;
  if (tab(name)?.getAttribute("aria-selected") === "true") document.getElementById(`${name}_reload`)?.click();
  else openTab(name);
  pasted({ tab: name, ...answer });
}

// Tells what could not be pasted, and the editors of the tab which pictures it begins from now.
export function pasted(answer) {
  document.dispatchEvent(new CustomEvent("darkroom:inputs", { detail: { tab: answer.tab, from: null, ids: answer.inputs } }));
  for (const problem of answer.pasted) toast(problem, "", "note");
}

const PLACES = { txt2img: ["txt2img"], img2img: ["img2img", "image"], inpaint: ["img2img", "inpaint"], extras: ["extras"] };
export const SOURCE = "darkroom:source";

// Buttons that send a picture elsewhere; `from` is the tab they are in.
export function sendButtons(from, kind = "button") {
  return Object.keys(PLACES).filter((place) => place !== from || place !== "txt2img").map((place) =>
    `<button type="button" class="${kind}" data-send="${place}">Send to ${place}</button>`).join("");
}

// Sends a picture at `url` and its infotext to a tab: txt2img takes the parameters alone.
export async function sendTo(place, infotext, url) {
  const [name, mode] = PLACES[place];
  if (name === "txt2img") return sendToForm(name, infotext);
  if (name === "extras") return sendToExtras(url);
  const stored = await attempt(() => keptPicture(url));
  return stored && sendToForm(name, infotext, { init_image: stored.id, mode });
}

// Stores a picture of the server's for a form to begin from; returns its id and size.
export async function keptPicture(url) {
  return call("inputs", await (await fetch(url)).blob(), true);
}

// Makes a picture that of the Extras tab, with the infotext that is in its file, and shows it there.
async function sendToExtras(url) {
  const answer = await attempt(async () => {
    const file = await fetch(url);
    const name = /filename="?([^";]+)/.exec(file.headers.get("content-disposition") || "")?.[1] || "";
    return call(`source?name=${encodeURIComponent(name)}`, await file.blob(), true);
  });
  if (!answer) return;
  if (tab("Extras")?.getAttribute("aria-selected") === "true") document.getElementById("extras_reload")?.click();
  else openTab("Extras");
  document.dispatchEvent(new CustomEvent(SOURCE, { detail: answer }));
}

export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes} min ${whole % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function fileSize(bytes) {
  return bytes < 1e3 ? `${bytes} B` : bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}

// The pictures of a job that are meant to be seen, in order: of a plot the grid, not its cells.
export function shownImages(job) {
  return job.shown.map((place) => job.images[place]);
}
