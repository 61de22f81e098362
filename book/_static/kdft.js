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
