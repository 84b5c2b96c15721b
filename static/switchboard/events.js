// A fold with `data-rows` fetches its rows when it is first opened, and more of them at its end.
// Without this script its link opens the same rows on a page of their own.

async function rows(url) {
  const answer = await fetch(url, { credentials: "same-origin" });
  if (!answer.ok || answer.redirected) throw new Error(`the server answered ${answer.status}`);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  return [...page.body.childNodes];
}

function withRows(href) {
  const url = new URL(href, location.href);
  url.searchParams.set("rows", "");
  return url;
}

async function more(event) {
  const link = event.target.closest("a[data-later]");
  if (!link) return;
  event.preventDefault();
  try {
    const found = await rows(withRows(link.href));
    const footer = link.closest(".sb-more");
    footer.replaceWith(...found);
    // those above are on the page already
    for (const earlier of document.querySelectorAll(".sb-fold a[data-earlier]")) earlier.remove();
  } catch {
    location.href = link.href;
  }
}

async function open(event) {
  const fold = event.target;
  if (!fold.open || fold.dataset.filled) return;
  fold.dataset.filled = "yes";
  const body = fold.querySelector(".sb-fold-body");
  try {
    body.replaceChildren(...(await rows(fold.dataset.rows)));
    body.addEventListener("click", more);
  } catch {
    delete fold.dataset.filled; // the link is still there, and so is another try
  }
}

for (const fold of document.querySelectorAll("details[data-rows]")) fold.addEventListener("toggle", open);
