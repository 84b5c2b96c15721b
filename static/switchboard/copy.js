// Buttons with `data-copy` copy that text and say so in the status beside them.

async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) {
    return navigator.clipboard.writeText(text);
  }
  // plain http, as on a machine of one's own: the old way
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "sb-unseen";
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  if (!done) throw new Error("the browser does not copy");
}

function select(element) {
  const range = document.createRange();
  range.selectNodeContents(element);
  getSelection().removeAllRanges();
  getSelection().addRange(range);
}

for (const button of document.querySelectorAll("[data-copy]")) {
  const box = button.parentElement;
  const status = box.querySelector("[role=status]");
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await copy(button.dataset.copy);
      status.textContent = "Copied";
    } catch {
      select(box.querySelector("code"));
      status.textContent = "Selected: press Ctrl+C or ⌘C";
    }
    button.focus();
    setTimeout(() => (status.textContent = ""), 4000);
  });
}
