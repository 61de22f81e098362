/* What scrolls sideways can be reached, and so scrolled, by keyboard. */
const scrolling = ".bd-article :is(pre, div.math, div.highlight, .cell_output, .output, .pst-scrollable-table-container)";
const reachable = new ResizeObserver((boxes) => {
  for (const { target } of boxes) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
document.querySelectorAll(scrolling).forEach((box) => reachable.observe(box));

/* Paper is light. */
const root = document.documentElement;
let shown;
addEventListener("beforeprint", () => {
  shown = root.dataset.theme;
  root.dataset.theme = "light";
});
addEventListener("afterprint", () => {
  root.dataset.theme = shown;
});

/* From disk the search finds, and cannot quote. */
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

/* The contents of a phone make way for what was chosen in them. */
document.querySelectorAll("dialog").forEach((dialog) => {
  dialog.addEventListener("click", ({ target }) => target.closest("a[href*='#']") && dialog.close());
});

/* The search quotes what was written, not the buttons and the contents around it. */
addEventListener("DOMContentLoaded", () => {
  if (typeof Search === "undefined") return;
  const { htmlToText } = Search;
  Search.htmlToText = (html, anchor) => {
    const article = new DOMParser().parseFromString(html, "text/html").querySelector("article");
    return htmlToText(article ? `<div role="main">${article.innerHTML}</div>` : html, anchor);
  };
});
