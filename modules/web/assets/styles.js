// The editor of styles: what each adds to the prompts, kept in styles.csv.

import { attempt, call, text, toast } from "./api.js";

let known = [];
let tab = "txt2img";

function element() {
  let dialog = document.getElementById("txt2img_styles_dialog");
  if (dialog) return dialog;
  dialog = document.createElement("dialog");
  dialog.id = "txt2img_styles_dialog";
  dialog.setAttribute("aria-labelledby", "styles_title");
  dialog.innerHTML = `
    <form method="dialog">
      <h2 id="styles_title">Styles</h2>
      <p class="hint">A style is added after the prompt; <code>{prompt}</code> in it takes the prompt in instead.</p>
      <label>Style <input id="txt2img_edit_style_select" list="styles_known" autocomplete="off" maxlength="200" placeholder="Choose one, or type a new name">
      <datalist id="styles_known"></datalist></label>
      <label>Prompt <textarea id="txt2img_edit_style_prompt" rows="3"></textarea></label>
      <label>Negative prompt <textarea id="txt2img_edit_style_neg_prompt" rows="3"></textarea></label>
      <div class="bar-row">
        <button type="button" class="button" data-do="copy" title="Puts the prompts of the form here">Copy from the form</button>
        <span class="spacer"></span>
        <button type="button" class="button" id="txt2img_edit_style_delete" data-do="delete" disabled>Delete</button>
        <button type="button" class="button primary" id="txt2img_edit_style_save" data-do="save" disabled>Save</button>
        <button type="submit" class="button">Close</button></div>
    </form>`;
  dialog.addEventListener("click", (event) => {
    const action = event.target.closest("[data-do]")?.dataset.do;
    if (action) actions[action](dialog);
  });
  dialog.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Enter" && event.target.tagName === "INPUT") event.preventDefault();
  });
  part(dialog, "select").addEventListener("input", () => choose(dialog));
  document.body.append(dialog);
  return dialog;
}

function part(dialog, name) {
  return dialog.querySelector(`#txt2img_edit_style_${name}`);
}

// Shows the style whose name is typed; for a new name the texts stay as they are.
function choose(dialog) {
  const name = part(dialog, "select").value;
  const style = known.find((one) => one.name === name);
  part(dialog, "save").disabled = !name.trim();
  part(dialog, "delete").disabled = !style;
  if (style) fill(dialog, style.prompt, style.negative_prompt);
}

function fill(dialog, prompt, negative) {
  part(dialog, "prompt").value = prompt;
  part(dialog, "neg_prompt").value = negative;
}

const actions = {
  copy: (dialog) => fill(dialog, ...["prompt", "neg_prompt"].map((name) => document.querySelector(`#${tab}_${name} textarea`).value)),
  save: (dialog) => change(dialog, "styles", {
    name: part(dialog, "select").value.trim(), prompt: part(dialog, "prompt").value, negative_prompt: part(dialog, "neg_prompt").value,
  }, "Saved"),
  delete: (dialog) => change(dialog, "styles/delete", { name: part(dialog, "select").value }, "Deleted"),
};

async function change(dialog, path, body, done) {
  const answer = await attempt(() => call(path, body));
  if (!answer) return;
  list(dialog, answer.styles);
  toast(`${done}: ${body.name}.`, "", "note");
  if (path !== "styles") {
    part(dialog, "select").value = "";
    fill(dialog, "", "");
  }
  choose(dialog);
  document.getElementById(`${tab}_reload`)?.click();
}

function list(dialog, styles) {
  known = styles;
  dialog.querySelector("datalist").innerHTML = styles.map((style) => `<option value="${text(style.name)}"></option>`).join("");
}

export async function editStyles(from) {
  const answer = await attempt(() => call("styles"));
  if (!answer) return;
  const dialog = element();
  tab = from;
  list(dialog, answer.styles);
  choose(dialog);
  dialog.showModal();
  part(dialog, "select").focus();
}
