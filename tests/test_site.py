"""The built site in a Chromium, page by page, with every other host out of reach: ``make book`` first."""

from __future__ import annotations

import functools
import gzip
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.base import AXE_FILE_PATH
from browsers import resize, served
from fontTools.ttLib import TTFont
from playwright.sync_api import expect

ROOT = Path(__file__).parents[1]
SITE, PICTURES = ROOT / "_build/html", ROOT / "_build/screenshots"
sys.path.insert(0, str(ROOT / "tools"))

from check_pages import pages  # noqa: E402

PAGES = [*pages(), "genindex", "py-modindex", "search"]
CHAPTER = "04-soft-targets"
WHOLE = {"intro", CHAPTER, "play", "what-it-costs", "in-your-browser", "api/losses"}
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
WIDTHS = (1280, 768, 390, 320)
AXE = {
    "light": {
        "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"],
        "rules": {"label-content-name-mismatch": {"enabled": True}},
        "resultTypes": ["violations"],
    },
    "dark": {"runOnly": ["color-contrast", "link-in-text-block"], "resultTypes": ["violations"]},
}
"""In the dark only what depends on colours is asked again."""
FONTS = {
    "Font Awesome 6 Free": "_static/vendor/fontawesome/webfonts/fa-solid-900.woff2",
    "Font Awesome 6 Brands": "_static/vendor/fontawesome/webfonts/fa-brands-400.woff2",
}

pytestmark = pytest.mark.site
expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def host():
    with served(SITE) as host:
        yield host


@functools.cache
def weight(path):
    """In bytes, as it travels."""
    return len(gzip.compress(path.read_bytes()))


class Visit:
    """A page, what its browser was given, and what it complained of."""

    def __init__(self, page, host):
        self.page, self.host = page, host
        self.given, self.complaints = set(), []
        page.on("response", self.take)
        page.on("requestfailed", lambda request: self.complaints.append(f"{request.url}: {request.failure}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda line: line.type in ("error", "warning") and self.complaints.append(line.text))

    def take(self, response):
        if response.status >= 400:
            self.complaints.append(f"{response.url}: {response.status}")
        elif not response.url.startswith("data:"):
            self.given.add(response.url)

    def open(self, name, **settings):
        self.page.goto(f"{self.host}/{name}.html", **settings)
        return self.page


@pytest.fixture
def visit(chromium, host):
    """Open pages in a browser of one's own."""
    contexts = []

    def visit(**settings):
        context = chromium.new_context(**{"viewport": DESKTOP, **settings})
        context.set_default_timeout(120_000)
        contexts.append(context)
        return Visit(context.new_page(), host)

    yield visit
    for context in contexts:
        context.close()


# ---- what holds for every page


def photograph(page, name, path):
    """Keep what a reader sees first; of a few pages all of it, as far as the browser can draw one picture."""
    whole = {}
    if name in WHOLE:
        height = min(page.evaluate("document.documentElement.scrollHeight"), 16_000)
        whole = {"full_page": True, "clip": {"x": 0, "y": 0, "width": page.viewport_size["width"], "height": height}}
    page.screenshot(path=path, type="jpeg", quality=70, **whole)


def faults_of_loading(visited):
    """As it stands before anything is scrolled to."""
    sent = sum(weight(SITE / unquote(urlsplit(url).path).lstrip("/")) for url in visited.given)
    if sent > 1_000_000:
        yield f"it weighs {sent:,} bytes, 1,000,000 is the most"


def faults_of_pictures(page):
    shown = page.locator("img").evaluate_all("""(all) => Promise.all(all.map(async (image) => {
        image.loading = "eager";
        await image.decode().catch(() => {}); // what does not come is a complaint of its own
        return [image.getAttribute("src"), image.alt.length, image.getAttribute("width"), image.getAttribute("height"),
            image.naturalWidth / image.naturalHeight];
    }))""")
    for source, words, width, height, drawn in shown:
        if "_images/" in source:
            if words <= 20:
                yield f"{source} has an alternative text of {words} letters"
            if int(width) / int(height) != pytest.approx(drawn, rel=0.02):
                yield f"{source} is said to be {width}×{height}, and {drawn:.2f} times as wide as high when drawn"


@functools.cache
def letters():
    """Those of the fonts that are sent."""
    return {family: set(TTFont(SITE / file).getBestCmap()) for family, file in FONTS.items()}


def faults_of_icons(page):
    icons = page.locator("[class*='fa-']").evaluate_all("""(icons) => icons.map((icon) => {
        const { content, fontFamily } = getComputedStyle(icon, "::before");
        return [icon.className, content.replace(/^"|"$/g, ""), fontFamily.replace(/"/g, "")];
    })""")
    if not icons:
        yield "it shows no icon"
    for name, letter, family in icons:
        if len(letter) != 1 or ord(letter) not in letters()[family]:
            yield f"the icon {name} is {letter!r}, which {family} does not have"


def faults_of_formulas(page, name):
    """They come with the page, which needs no script for them, and have a font of their own."""
    text = (SITE / f"{name}.html").read_text(encoding="utf-8")
    sizes = page.locator("math").evaluate_all("""(all) => all.map((one) => one.checkVisibility() ?
        [one.getBoundingClientRect().width, one.getBoundingClientRect().height] : null)""")
    if (written := text.count("<math")) != len(sizes):
        yield f"{written} formulas are written, and {len(sizes)} are there"
    if name == CHAPTER and len(sizes) <= 20:
        yield f"it has {len(sizes)} formulas"
    if small := [size for size in sizes if size and (size[0] <= 3 or size[1] <= 5)]:
        yield f"{len(small)} formulas are not drawn: {small}"
    if r"\mathrm" in page.locator("main").inner_text():
        yield "it shows the source of a formula"
    font = "[...document.fonts].some((font) => /STIX/.test(font.family) && font.status === 'loaded')"
    if any(sizes) and not page.evaluate(font):
        yield "its formulas have no font of their own"


def faults_of_motion(page):
    """Where a reader wants none."""
    moving = page.locator("*").evaluate_all("""(all) => all.map((one) => [one, getComputedStyle(one)])
        .filter(([, style]) => /[1-9]/.test(style.transitionDuration) || style.animationName !== "none")
        .map(([one]) => one.outerHTML.slice(0, 80))""")
    for element in moving:
        yield f"moves: {element}"
    if page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") != "auto":
        yield "scrolls smoothly"


def faults_of_layout(page, width):
    """Sideways the page does not scroll, and what does in it is reached by keyboard."""
    if (wide := page.evaluate("document.documentElement.scrollWidth")) > width:
        yield f"at {width}: {wide} pixels wide"
    boxes = page.locator(".bd-article :is(pre, div.math, .output, .pst-scrollable-table-container)")
    left = boxes.evaluate_all("""(boxes) => boxes.filter((box) => box.checkVisibility()
        && box.scrollWidth > box.clientWidth && box.tabIndex < 0 && !box.querySelector("a, [tabindex='0']"))
        .map((box) => box.outerHTML.slice(0, 100))""")
    for box in left:
        yield f"at {width}: scrolls, and no keyboard reaches it: {box}"


def wear(page, theme):
    page.emulate_media(color_scheme=theme)
    page.wait_for_function("theme => document.documentElement.dataset.theme === theme", arg=theme)


def faults_by_axe(page, width, theme):
    wear(page, theme)
    page.evaluate(ONE_OF_EACH)
    found = page.evaluate("(rules) => axe.run(document, rules)", AXE[theme])
    for rule in found["violations"]:
        for node in rule["nodes"]:
            yield f"{theme}, at {width}: {rule['id']}: {node['html']}"


ONE_OF_EACH = """() => {
    const plain = { textContent: "pre { background-image: none !important }" };
    document.head.append(Object.assign(document.createElement("style"), plain));
    const seen = new Set(), grounds = new Map([[null, ""]]);
    const ground = (box) => {
        if (!grounds.has(box)) {
            const { backgroundColor, backgroundImage, opacity } = getComputedStyle(box);
            grounds.set(box, [backgroundColor, backgroundImage, opacity, ground(box.parentElement)].join());
        }
        return grounds.get(box);
    };
    for (const element of document.querySelectorAll(".bd-article *")) {
        if (!element.checkVisibility() || ![...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE))
            continue;
        const { color, fontSize, fontWeight, textShadow } = getComputedStyle(element);
        const look = [color, fontSize, fontWeight, textShadow, ground(element)].join();
        element.toggleAttribute("data-alike", seen.has(look));
        seen.add(look);
    }
    axe.configure({ rules: [{ id: "color-contrast", selector: ":not([data-alike])" }] });
}"""
"""Contrast is a matter of looks: of the words of an article that have the same, axe is asked for one. Most are words of
code, and it would be asked for each of some 2,900 in a chapter, which takes three quarters of its time. The shadow at
the edge of code goes, since axe says nothing of contrast on a gradient."""


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_in_order(visit, name):
    """In one visit. What it looked like is kept as pictures: the beginning of each page, and a few from end to end."""
    visited = visit(color_scheme="light", reduced_motion="reduce")
    page = visited.open(name, wait_until="networkidle")
    faults = [*faults_of_loading(visited), *faults_of_pictures(page), *faults_of_icons(page), *faults_of_motion(page)]
    page.locator(".bd-article details").evaluate_all("(all) => all.forEach((details) => { details.open = true; })")
    faults += faults_of_formulas(page, name)
    for width in WIDTHS:
        viewport = {view["width"]: view for view in (DESKTOP, PHONE)}.get(width)
        resize(page, viewport or {"width": width, "height": 800})
        faults += faults_of_layout(page, width)
        for theme in AXE if viewport else ():
            wear(page, theme)
            photograph(page, name, PICTURES / theme / str(width) / f"{name.replace('/', '-')}.jpg")
    page.evaluate(AXE_FILE_PATH.read_text(encoding="utf-8"))
    for viewport in (DESKTOP, PHONE):
        resize(page, viewport)
        for theme in AXE:
            faults += faults_by_axe(page, viewport["width"], theme)
    faults += visited.complaints
    faults += [f"asks another host: {url}" for url in visited.given if not url.startswith(visited.host)]
    assert faults == []


# ---- for everyone


def test_the_keyboard_reaches_everything_in_order_and_shows_where_it_is(visit):
    page = visit().open(CHAPTER)
    walk = """() => {
        const { activeElement: here } = document, mark = here.querySelector(".toctree-toggle") ?? here;
        const box = mark.getBoundingClientRect(), style = getComputedStyle(mark);
        const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
        const before = window.walked;
        window.walked = here;
        return {
            name: here.outerHTML.slice(0, 120),
            end: here === document.body,
            ring: ring || style.boxShadow !== "none" || here.matches("input"),
            shown: box.width > 0 && box.height > 0,
            onward: !before || Boolean(before.compareDocumentPosition(here) & Node.DOCUMENT_POSITION_FOLLOWING),
        };
    }"""
    steps = []
    for _ in range(400):
        page.keyboard.press("Tab")
        steps.append(page.evaluate(walk))
        if steps[-1]["end"]:
            break
    assert steps.pop()["end"]
    assert [step["name"] for step in steps if not (step["ring"] and step["shown"] and step["onward"])] == []
    reachable = "(all) => all.filter((one) => one.checkVisibility() && !one.closest('[tabindex=\"-1\"]')).length"
    assert len(steps) >= page.locator("main :is(a[href], button, summary)").evaluate_all(reachable)


def test_the_first_step_of_the_keyboard_leads_past_the_navigation(visit):
    page = visit().open(CHAPTER)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to main content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")


def test_folded_answers_open_by_keyboard(visit):
    page = visit().open(CHAPTER)
    question = page.locator(".bd-article details:not(.hide) > summary").first
    answer = page.locator(".bd-article details:not(.hide) > p").first
    expect(answer).to_be_hidden()
    question.focus()
    page.keyboard.press("Enter")
    expect(answer).to_be_visible()
    page.keyboard.press("Space")
    expect(answer).to_be_hidden()


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_folded_solutions_open_and_close(visit, viewport):
    page = visit(viewport=viewport, has_touch=viewport is PHONE).open(CHAPTER)
    fold = page.locator(".bd-article details.hide").last
    solution, handle = fold.locator("pre").first, fold.locator("summary")
    for shown in (False, True, False):
        expect(solution).to_be_visible(visible=shown)
        expect(handle).to_contain_text("Hide code" if shown else "Show code", use_inner_text=True)
        handle.tap() if viewport is PHONE else handle.click()


# ---- what a reader does


@pytest.mark.parametrize("served", [True, False], ids=["served", "from disk"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_search(visit, served, viewport):
    visited = visit(viewport=viewport)
    visited.host = visited.host if served else SITE.as_uri()
    page = visited.open("intro")
    page.keyboard.press("Control+k")
    expect(page.get_by_role("searchbox").and_(page.locator(":focus"))).to_be_visible()
    page.keyboard.type("temperature")
    page.keyboard.press("Enter")
    found = page.locator("#search-results li a")
    expect(found.filter(has_text="Soft targets").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    found.filter(has_text="Soft targets").first.click()
    page.wait_for_url(f"**/{CHAPTER}.html*")
    assert visited.complaints == []


def test_the_theme_is_switched_and_kept(visit):
    page = visit(color_scheme="light").open(CHAPTER)
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    switch = page.get_by_role("button", name="Color mode")
    for _ in range(3):
        if page.evaluate("document.documentElement.dataset.theme") == "dark":
            break
        switch.click()
    assert page.evaluate(ground) == "rgb(20, 24, 28)"
    page.reload()
    assert page.evaluate(ground) == "rgb(20, 24, 28)"


def test_code_is_copied(visit):
    page = visit(permissions=["clipboard-read", "clipboard-write"]).open(CHAPTER)
    cell = page.locator("div.cell_input").filter(has_text="def soft_targets_from_scratch")
    cell.hover()
    cell.get_by_role("button").click()
    expect(cell.get_by_role("button")).to_have_class("copybtn o-tooltip--left success")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("def soft_targets_from_scratch(")
    assert copied.rstrip().endswith("divergence.mean()")


def test_the_search_quotes_what_was_written(visit):
    page = visit().open("search")
    page.goto(f"{page.url}?q=temperature")
    quotes = page.locator("#search-results p.context")
    expect(quotes.first).to_be_visible()
    assert [quote for quote in quotes.all_inner_texts() if "Contents" in quote or ".pdf" in quote] == []


def test_the_contents_of_a_phone_make_way(visit):
    page = visit(viewport=PHONE, has_touch=True).open(CHAPTER)
    page.get_by_role("button", name="Toggle secondary sidebar").tap()
    contents = page.locator("#pst-secondary-sidebar-modal")
    expect(contents).to_be_visible()
    contents.get_by_role("link", name="When not to use it").tap()
    expect(contents).to_be_hidden()
    expect(page.get_by_role("heading", name="When not to use it")).to_be_in_viewport()


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_from_page_to_page(visit, viewport):
    visited = visit(viewport=viewport)
    page = visited.open("intro")
    if viewport is PHONE:
        page.get_by_role("button", name="Toggle primary sidebar").click()
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Soft targets").click()
    page.wait_for_url(f"**/{CHAPTER}.html")
    page.get_by_title("next page").click()
    page.wait_for_url("**/05-beyond-logits.html")
    assert visited.complaints == []


def test_a_page_is_read_without_scripts(visit):
    page = visit(java_script_enabled=False).open(CHAPTER)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    question = page.locator(".bd-article details:not(.hide) > summary").first
    question.click()
    expect(page.locator(".bd-article details:not(.hide) > p").first).to_be_visible()


def test_paper_is_light_and_shows_the_answers(visit):
    page = visit(color_scheme="dark").open(CHAPTER)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    expect(page.get_by_role("heading", level=1).filter(visible=True)).to_have_count(1)
    expect(page.locator(".bd-article details:not(.hide) > p").first).to_be_visible()
    ledger = page.locator(".tag_hide-cell:not(.tag_solution) > details.hide > .cell_output table").first
    expect(ledger).to_be_visible()
    folded = ".tag_hide-cell > details.hide > .cell_input, details.hide > summary"
    expect(page.locator(folded).filter(visible=True)).to_have_count(0)
    expect(page.locator("#pst-primary-sidebar")).to_be_hidden()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_on_a_dark_page_figures_of_lines_are_light_lines(visit):
    page = visit(color_scheme="dark").open(CHAPTER)
    lines = page.locator(".bd-article img.drawing")
    assert lines.count() >= 2
    expect(lines.first).to_have_css("filter", "invert(1) hue-rotate(180deg)")
    others = page.locator(".bd-article img:not(.drawing)[src*='_images']")
    expect(others.first).to_have_css("background-color", "rgb(255, 255, 255)")
