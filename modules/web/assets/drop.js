// A place that files are dropped on, or chosen at: a label with an input of files in it.

export function takesFiles(drop, bring) {
  const input = drop.querySelector('input[type="file"]');
  input.addEventListener("change", () => { bring([...input.files]); input.value = ""; });
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => { event.preventDefault(); drop.classList.remove("over"); bring([...event.dataTransfer.files]); });
  drop.addEventListener("keydown", (event) => {
    if (event.target !== drop || !["Enter", " "].includes(event.key)) return;
    event.preventDefault();
    input.click();
  });
}
