"""The built site in a Chromium, page by page, with every other host out of reach: ``make book`` first."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest
from axe_playwright_python.base import AXE_FILE_PATH
from browsers import served
from fontTools.ttLib import TTFont
from playwright.sync_api import expect

ROOT = Path(__file__).parents[1]
SITE, PICTURES = ROOT / "_build/html", ROOT / "_build/screenshots"
sys.path.insert(0, str(ROOT / "tools"))

from check_pages import pages  # noqa: E402

PAGES = [*pages(), "genindex", "py-modindex", "search"]
CHAPTER = "04-soft-targets"
WHOLE = {"intro", CHAPTER, "play", "in-your-browser", "api/losses"}
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
AXE = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"],
    "rules": {"label-content-name-mismatch": {"enabled": True}},
    "resultTypes": ["violations"],
}
FONTS = {
    "Font Awesome 6 Free": "_static/vendor/fontawesome/webfonts/fa-solid-900.woff2",
    "Font Awesome 6 Brands": "_static/vendor/fontawesome/webfonts/fa-brands-400.woff2",
}

pytestmark = pytest.mark.site
expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def host():
    assert SITE.exists(), "The book is not built: make book"
    with served(SITE) as host:
        yield host


class Visit:
    """A page, what its browser asked for, and what it complained of."""

    def __init__(self, page, host):
        self.page, self.host = page, host
        self.weights, self.complaints = {}, []
        page.on("response", self.weigh)
        page.on("requestfailed", lambda request: self.complaints.append(f"{request.url}: {request.failure}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda line: line.type in ("error", "warning") and self.complaints.append(line.text))

    def weigh(self, response):
        if response.status >= 400:
            self.complaints.append(f"{response.url}: {response.status}")
        elif response.ok:
            self.weights[response.url] = len(gzip.compress(response.body()))

    def open(self, name):
        self.page.goto(f"{self.host}/{name}.html")
        return self.page


@pytest.fixture
def visit(chromium, host):
    """Open pages in a browser of one's own that reaches no other host."""
    contexts = []

    def visit(**settings):
        context = chromium.new_context(**{"viewport": DESKTOP, **settings})
        context.set_default_timeout(120_000)
        contexts.append(context)
        context.route(lambda url: not url.startswith((host, "file:", "data:")), lambda route: route.abort())
        return Visit(context.new_page(), host)

    yield visit
    for context in contexts:
        context.close()


def resize(page, viewport):
    """Give the page another size, and time to notice."""
    page.set_viewport_size(viewport)
    page.evaluate("() => new Promise((noticed) => requestAnimationFrame(() => requestAnimationFrame(noticed)))")


def photograph(page, name, path):
    """Keep what a reader sees first; of a few pages all of it, as far as the browser can draw one picture."""
    size = dict(page.viewport_size)
    if name in WHOLE:
        load = "(image) => { image.loading = 'eager'; return image.decode(); }"
        page.locator("main img").evaluate_all(f"(all) => Promise.all(all.map({load}))")
        size["height"] = min(page.evaluate("document.documentElement.scrollHeight"), 16_000)
    page.screenshot(path=path, full_page=True, clip={"x": 0, "y": 0, **size}, type="jpeg", quality=70)


def unfold(page):
    """Show what a reader can unfold."""
    page.locator(".bd-article details").evaluate_all("(all) => all.forEach((details) => { details.open = true; })")


# ---- what every page loads, and what it shows


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_missed_where_no_other_host_answers(visit, name):
    visited = visit()
    page = visited.open(name)
    page.wait_for_load_state("networkidle")
    loaded = sum(visited.weights.values())
    page.locator("img").evaluate_all("(all) => all.forEach((image) => { image.loading = 'eager'; })")
    page.wait_for_load_state("networkidle")
    assert visited.complaints == []
    assert [url for url in visited.weights if not url.startswith(visited.host)] == []
    assert loaded <= 1_000_000

    for image in page.locator("img[src*='_images/']").all():
        assert len(image.get_attribute("alt")) > 20
        written = int(image.get_attribute("width")) / int(image.get_attribute("height"))
        drawn = image.evaluate("async (i) => { await i.decode(); return i.naturalWidth / i.naturalHeight; }")
        assert written == pytest.approx(drawn, rel=0.02)

    read = """(icons) => icons.map((icon) => {
        const { content, fontFamily } = getComputedStyle(icon, "::before");
        return [icon.className, content.replace(/^"|"$/g, ""), fontFamily.replace(/"/g, "")];
    })"""
    icons = page.locator("[class*='fa-']").evaluate_all(read)
    known = {family: TTFont(SITE / file).getBestCmap() for family, file in FONTS.items()}
    assert icons
    assert [icon for icon in icons if len(icon[1]) != 1 or ord(icon[1]) not in known[icon[2]]] == []


@pytest.mark.parametrize("name", PAGES)
def test_formulas_are_drawn(visit, name):
    page = visit(java_script_enabled=False).open(name)
    assert r"\mathrm" not in page.locator("main").inner_text()
    sizes = [box.bounding_box() for box in page.locator(".math math").all() if box.is_visible()]
    assert all(box["width"] > 3 and box["height"] > 5 for box in sizes)
    if name == CHAPTER:
        assert len(sizes) > 20


def test_formulas_have_a_font_of_their_own(visit):
    page = visit().open(CHAPTER)
    assert page.evaluate("[...document.fonts].some((font) => /STIX/.test(font.family) && font.status === 'loaded')")


@pytest.mark.parametrize("name", PAGES)
def test_the_page_does_not_scroll_sideways(visit, name):
    page = visit().open(name)
    unfold(page)
    for width in (1280, 768, 390, 320):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


# ---- for everyone


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(visit, name, theme):
    """What it looked at is kept as pictures: the beginning of each page, and a few from end to end."""
    page = visit(color_scheme=theme, reduced_motion="reduce").open(name)
    unfold(page)
    page.evaluate(AXE_FILE_PATH.read_text(encoding="utf-8"))
    for viewport in (DESKTOP, PHONE):
        resize(page, viewport)
        found = page.evaluate("(rules) => axe.run(document, rules)", AXE)
        photograph(page, name, PICTURES / theme / str(viewport["width"]) / f"{name.replace('/', '-')}.jpg")
        assert [(rule["id"], node["html"]) for rule in found["violations"] for node in rule["nodes"]] == []


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


def test_what_scrolls_is_reached_by_keyboard(visit):
    page = visit(viewport=PHONE).open(CHAPTER)
    boxes = ".bd-article :is(pre, div.math, .output, .pst-scrollable-table-container)"
    left = """(boxes) => boxes.filter((box) => box.checkVisibility() && box.scrollWidth > box.clientWidth
        && box.tabIndex < 0 && !box.querySelector("a, [tabindex='0']")).map((box) => box.outerHTML.slice(0, 100))"""
    page.wait_for_function("document.querySelectorAll('.bd-article pre[tabindex]').length > 3")
    assert page.locator(boxes).evaluate_all(left) == []


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


def test_nothing_moves_where_motion_is_not_wanted(visit):
    page = visit(reduced_motion="reduce").open(CHAPTER)
    moving = """(all) => all.map((one) => [one.outerHTML.slice(0, 80), getComputedStyle(one)]).filter(([, style]) =>
        /[1-9]/.test(style.transitionDuration) || style.animationName !== "none").map(([name]) => name)"""
    assert page.locator("*").evaluate_all(moving) == []
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"


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
    expect(page.locator("#pst-primary-sidebar")).to_be_hidden()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_on_a_dark_page_figures_of_lines_are_light_lines(visit):
    page = visit(color_scheme="dark").open(CHAPTER)
    lines = page.locator(".bd-article img.drawing")
    assert lines.count() >= 3
    expect(lines.first).to_have_css("filter", "invert(1) hue-rotate(180deg)")
    others = page.locator(".bd-article img:not(.drawing)[src*='_images']")
    expect(others.first).to_have_css("background-color", "rgb(255, 255, 255)")
