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

function tab(name) {
  return [...document.querySelectorAll('[role="tab"]')].find((one) => one.textContent.trim() === name);
}

export function openTab(name) {
  tab(name)?.click();
}

// Writes an infotext into the stored form, which the tab shows when it opens, or again if it is open.
export async function sendToForm(infotext) {
  const answer = await attempt(() => call("paste", { infotext }));
  if (!answer) return;
  if (tab("txt2img")?.getAttribute("aria-selected") === "true") document.getElementById("txt2img_reload")?.click();
  else openTab("txt2img");
  for (const problem of answer.pasted) toast(problem, "", "note");
}

export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes} min ${whole % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
