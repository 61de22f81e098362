"""The page on which the student runs, in a Chromium: a bare page around the widget, as ``make book`` builds it."""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

import pytest
import torch
from browsers import Reader, served, visits
from PIL import Image, ImageDraw
from playwright.sync_api import expect

from kdft_lib.datasets import FASHION_CLASSES, FASHION_NORMALIZATION
from kdft_lib.models import fashion_teacher, load

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "book/in-your-browser.md"
FOLDER = ROOT / "book/_extra/browser"
BUILT = ROOT / "_build/html/in-your-browser.html"
sys.path.insert(0, str(ROOT / "tools"))

import bare_page  # noqa: E402


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the widget on a page of its own."""
    folder = tmp_path_factory.mktemp("site")
    bare_page.write("in-your-browser", "browser", folder)
    return folder


class Painter(Reader):
    """What a reader does on the page, and what it shows."""

    @property
    def canvas(self):
        return self.page.get_by_role("application", name="Picture to draw on")

    def at(self, x, y):
        """Where a pixel of the picture lies on the screen."""
        box = self.canvas.bounding_box()
        return box["x"] + (x + 0.5) * box["width"] / 28, box["y"] + (y + 0.5) * box["height"] / 28

    def stored(self, name, dtype):
        """One of the fields that the recipe wrote as base64."""
        content = bytearray(base64.b64decode(self.page.evaluate(f"kdftData.{name}")))
        return torch.frombuffer(content, dtype=dtype)

    def logits(self, network, weights, data):
        """A network's answers to normalised pictures, as the page's script computes them."""
        run = """([network, weights, pictures]) => {
            const run = kdftNetworks[network](Float32Array.from(weights));
            return pictures.map((picture) => run(Float32Array.from(picture)));
        }"""
        return torch.tensor(self.page.evaluate(run, [network, weights.tolist(), data.inputs.flatten(1).tolist()]))

    def picture(self):
        """28×28 grey values, read from the middles of the canvas's cells; ``[y, x]``."""
        read = """(canvas) => {
            const { data } = canvas.getContext("2d").getImageData(0, 0, 280, 280);
            return Array.from(data.filter((_, i) => i % 40 === 20 && Math.floor(i / 1120) % 10 === 5));
        }"""
        return torch.tensor(self.canvas.evaluate(read)).view(28, 28)

    def bars(self, who):
        """The ten shares that are drawn, once both networks have answered."""
        expect(self.page.get_by_role("table")).to_have_attribute("aria-busy", "false")
        read = "(bars) => bars.map((bar) => +bar.style.getPropertyValue('--share'))"
        return torch.tensor(self.page.locator(f"td.{who} i").evaluate_all(read))

    def numbers(self, who):
        """The ten shares that are written."""
        texts = self.page.locator(f"td.{who} span").all_inner_texts()
        return torch.tensor([float(text.removesuffix("\u00a0%")) for text in texts]) / 100

    def expect_answers(self, student_logits, teacher_logits, temperature=4.0):
        for who, logits, tolerance in (("student", student_logits, 1e-4), ("teacher", teacher_logits, 1e-2)):
            wanted = (logits / temperature).softmax(dim=-1)
            torch.testing.assert_close(self.bars(who), wanted, atol=tolerance, rtol=0)
            torch.testing.assert_close(self.numbers(who), self.bars(who), atol=6e-4, rtol=0)


@pytest.fixture
def visit(chromium, site):
    with visits(chromium, site / "page.html", Painter) as visit:
        yield visit


@pytest.fixture(scope="module")
def student():
    return load(FOLDER / "student.safetensors").eval()


@pytest.fixture(scope="module")
def shown(fashion):
    """The first ten test pictures of each class, class after class."""
    places = [torch.nonzero(fashion.test.targets == label).flatten()[:10] for label in range(10)]
    return fashion.test[torch.cat(places)]


@pytest.fixture(scope="module")
def answer(student):
    """The logits of both networks on a grey picture, by PyTorch."""
    mean, deviation = FASHION_NORMALIZATION
    teacher = fashion_teacher()

    def answer(grey):
        inputs = (grey.view(1, 1, 28, 28) / 255 - mean) / deviation
        with torch.no_grad():
            return student(inputs)[0], teacher(inputs)[0]

    return answer


def logits(model, data):
    with torch.no_grad():
        return model(data.inputs)


# ---- what it computes


def test_the_students_answers_are_pytorchs_on_the_hundred_pictures(visit, student, shown):
    reader = visit()
    answers = reader.logits("student", reader.stored("student", torch.float32), shown)
    assert answers.shape == (100, 10)
    torch.testing.assert_close(answers, logits(student, shown), atol=1e-4, rtol=0)


def test_the_pictures_shown_are_the_first_ten_of_each_class(visit, shown):
    reader = visit()
    mean, deviation = FASHION_NORMALIZATION
    grey = reader.stored("pictures", torch.uint8).view(100, 1, 28, 28)
    torch.testing.assert_close((grey / 255 - mean) / deviation, shown.inputs)
    assert reader.page.evaluate("kdftData.labels") == shown.targets.tolist()
    assert reader.page.evaluate("kdftData.classes") == list(FASHION_CLASSES)
    assert reader.page.evaluate("[kdftData.mean, kdftData.deviation]") == [mean, deviation]


def test_the_teachers_answers_are_pytorchs(visit, shown):
    """Those that were stored are exact; in half precision its probabilities move by less than the page says."""
    reader = visit()
    wanted = logits(fashion_teacher(), shown)
    stored = reader.stored("teacherLogits", torch.float32).view(100, 10)
    torch.testing.assert_close(stored, wanted, atol=1e-4, rtol=0)
    reader.page.add_script_tag(path=FOLDER / "teacher.js")
    answers = reader.logits("teacher", reader.stored("teacher", torch.float16).float(), shown)
    assert (answers.softmax(1) - wanted.softmax(1)).abs().max() < 0.01


def test_the_page_says_what_was_measured(student, shown, answer):
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    teacher, kilobytes = fashion_teacher(), 4 * sum(p.numel() for p in student.parameters()) / 1000
    right = [int((logits(model, shown).argmax(1) == shown.targets).sum()) for model in (student, teacher)]
    scores = [f"{100 * model.card['test_accuracy']:.1f} %" for model in (student, teacher)]
    assert f"the student is right in {scores[0]}, its teacher in {scores[1]}" in text
    assert f"the first ten of each class, in {right[0]} and {right[1]}" in text
    assert f"{student.card['parameters']:,} numbers" in text
    assert f"the {kilobytes:.0f} kB of this network" in text
    assert f"its weights, in half precision and {(FOLDER / 'teacher.js').stat().st_size / 1000:.0f} kB of text" in text
    assert round(teacher.card["parameters"] / student.card["parameters"]) == 19
    sure = logits(teacher, shown).softmax(1).amax(1) > 0.95
    assert f"more than 95 % sure of {int(sure.sum())} of the hundred" in text
    wrong = shown.targets[logits(student, shown).argmax(1) != shown.targets].bincount()
    assert FASHION_CLASSES[wrong.argmax()] == "shirt"
    assert (wrong.max(), wrong.sum()) == (6, 17)
    assert "Six of the student's 17 errors on the hundred pictures are there" in text
    assert "At T = 1 both networks are 99 % sure that a blank is a sandal" in text
    for empty in answer(torch.zeros(28, 28)):
        assert round(float(empty.softmax(0)[FASHION_CLASSES.index("sandal")]), 2) == 0.99


# ---- what a reader does


def test_a_test_picture_is_chosen_by_keyboard_and_the_slider_softens_both_answers(visit, shown, answer):
    reader = visit()
    reader.page.get_by_label("Test pictures of").focus()
    reader.page.keyboard.press("ArrowDown")  # the second class
    expect(reader.status).to_contain_text("A test picture labelled trouser")
    reader.page.keyboard.press("Tab")
    reader.page.keyboard.press("ArrowRight")  # its second picture
    expect(reader.page.get_by_role("radio", name="trouser 2")).to_be_checked()
    picture = reader.picture()
    mean, deviation = FASHION_NORMALIZATION
    torch.testing.assert_close((picture / 255 - mean) / deviation, shown.inputs[11, 0])
    student_logits, teacher_logits = answer(picture)
    reader.expect_answers(student_logits, teacher_logits)
    reader.page.get_by_label("Temperature").focus()
    for key, temperature in (("Home", 1.0), ("ArrowRight", 1.5), ("End", 20.0)):
        reader.page.keyboard.press(key)
        reader.expect_answers(student_logits, teacher_logits, temperature)
        expect(reader.status).to_contain_text(f"At T = {temperature:g} the teacher says trouser")
    assert not any("teacher.js" in url for url in reader.requests)


def test_pictures_on_which_the_student_errs_are_marked(visit, student, shown):
    reader = visit()
    wrong = logits(student, shown).argmax(1) != shown.targets
    for label, name in enumerate(FASHION_CLASSES):
        reader.page.get_by_label("Test pictures of").select_option(name)
        of_class = wrong[shown.targets == label]
        expect(reader.page.locator(".choices label.wrong")).to_have_count(int(of_class.sum()))
        expect(reader.page.get_by_role("radio", name="the student errs")).to_have_count(int(of_class.sum()))


def test_drawn_on_by_mouse(visit, answer):
    reader = visit()
    before = reader.picture()
    assert before.sum() > 0
    assert not any("teacher.js" in url for url in reader.requests)
    reader.page.mouse.move(*reader.at(4, 24))
    reader.page.mouse.down()
    reader.page.mouse.move(*reader.at(24, 24), steps=3)
    reader.page.mouse.up()
    reader.page.mouse.move(*reader.at(24, 4))  # released: it draws no more
    after = reader.picture()
    assert (after[24, 4:25] == 255).all()
    torch.testing.assert_close(after[:20], before[:20])
    expect(reader.status).to_contain_text("Your drawing.")
    assert sum("teacher.js" in url for url in reader.requests) == 1
    reader.expect_answers(*answer(after))
    expect(reader.page.get_by_role("radio", checked=True)).to_have_count(0)


def test_drawn_on_by_touch(visit, answer):
    reader = visit(has_touch=True, is_mobile=True, viewport={"width": 360, "height": 640})
    reader.page.get_by_role("button", name="Clear").tap()
    assert reader.picture().sum() == 0
    reader.canvas.scroll_into_view_if_needed()
    scrolled = reader.page.evaluate("scrollY")
    finger = reader.page.context.new_cdp_session(reader.page)

    def touch(kind, *places):
        points = [dict(zip("xy", reader.at(*place), strict=True)) for place in places]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (14, 22))
    for y in range(21, 5, -1):
        touch("touchMove", (14, y))
    touch("touchEnd")
    picture = reader.picture()
    assert (picture[6:23, 14] == 255).all()
    assert (picture[:, :12] == 0).all()
    assert reader.page.evaluate("scrollY") == scrolled
    reader.expect_answers(*answer(picture))


def test_drawn_on_by_keyboard(visit, answer):
    reader = visit()
    reader.page.keyboard.press("Tab")
    expect(reader.canvas).to_be_focused()
    reader.page.keyboard.press("Escape")
    assert reader.picture().sum() == 0
    reader.page.keyboard.press("ArrowLeft")  # a cursor, which starts in the middle
    assert reader.picture().sum() == 0
    reader.page.keyboard.press("Space")
    assert reader.picture()[14, 13] == 255
    reader.page.keyboard.down("Space")
    for _ in range(5):
        reader.page.keyboard.press("ArrowDown")
    reader.page.keyboard.up("Space")
    reader.page.keyboard.press("ArrowRight")
    for _ in range(22):
        reader.page.keyboard.press("ArrowUp")  # up to the border, without drawing
    picture = reader.picture()
    assert (picture[14:20, 13] == 255).all()
    assert (picture[:11] == 0).all()
    reader.expect_answers(*answer(picture))
    reader.page.keyboard.press("Tab")
    reader.page.keyboard.press("Enter")
    expect(reader.page.get_by_role("button", name="Erase", pressed=True)).to_be_focused()
    reader.page.mouse.click(*reader.at(13, 19))
    assert reader.picture()[19, 13] == 0
    assert reader.picture()[15, 13] == 255


def png(size, background, mark, box, mode="RGB"):
    image = Image.new(mode, size, background)
    ImageDraw.Draw(image).rectangle(box, fill=mark)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return {"name": "own.png", "mimeType": "image/png", "buffer": buffer.getvalue()}


@pytest.mark.parametrize(
    ("file", "inverted"),
    [
        (png((560, 560), "white", "black", (200, 100, 359, 459)), True),
        (png((560, 560), "black", "white", (200, 100, 359, 459)), False),
        (png((560, 560), (0, 0, 0, 0), "black", (200, 100, 359, 459), "RGBA"), True),
    ],
    ids=["light", "dark", "transparent"],
)
def test_a_picture_is_loaded(visit, answer, file, inverted):
    reader = visit()
    reader.page.get_by_label("Load a picture").set_input_files(file)
    expect(reader.status).to_contain_text("own.png, scaled to 28×28, made grey and")
    expect(reader.status).to_contain_text(
        " inverted, since its border is light" if inverted else " not inverted, since its border is dark"
    )
    wanted = torch.zeros(28, 28, dtype=torch.int64)
    wanted[5:23, 10:18] = 255
    torch.testing.assert_close(reader.picture(), wanted, atol=2, rtol=0)
    reader.expect_answers(*answer(reader.picture()))


def test_a_picture_that_is_not_square_is_fitted_and_its_border_is_its_own(visit):
    reader = visit()
    reader.page.get_by_label("Load a picture").set_input_files(
        png((560, 280), (200, 200, 200), "red", (240, 80, 319, 199))
    )
    expect(reader.status).to_contain_text("inverted, since")
    picture = reader.picture()
    assert (picture[:7] == 0).all()
    assert (picture[21:] == 0).all()
    assert (picture[8, 2:26] == 55).all()
    assert picture[14, 14] == round(255 - 0.299 * 255)


def test_what_is_no_picture_is_refused_with_a_sentence(visit):
    reader = visit()
    before = reader.picture()
    reader.page.get_by_label("Load a picture").set_input_files(
        {"name": "a.txt", "mimeType": "text/plain", "buffer": b"no"}
    )
    expect(reader.status).to_have_text("a.txt cannot be read as a picture; choose a PNG, JPEG or WebP.")
    torch.testing.assert_close(reader.picture(), before)


def test_a_teacher_that_does_not_arrive_is_missed_and_asked_for_again(visit, site):
    with served(site) as host:
        reader = visit(f"{host}/page.html", silent=False)
        reader.page.route("**/teacher.js", lambda route: route.abort())
        reader.page.get_by_role("button", name="Clear").click()
        expect(reader.status).to_contain_text("the teacher could not be loaded")
        expect(reader.page.locator("td.teacher span").first).to_have_text("…")
        assert abs(reader.bars("student").sum() - 1) < 1e-5
        reader.page.unroute("**/teacher.js")
        reader.page.get_by_role("button", name="Clear").click()
        expect(reader.status).to_contain_text("the teacher says")


# ---- where it stands


@pytest.mark.parametrize("built", [False, pytest.param(True, marks=pytest.mark.site)], ids=["bare", "built"])
def test_nothing_comes_from_another_host(visit, site, built):
    with served(BUILT.parent if built else site) as host:
        reader = visit(f"{host}/{BUILT.name if built else 'page.html'}", silent=False)
        expect(reader.status).to_contain_text("the student says")
        reader.page.get_by_role("button", name="Clear").click()
        expect(reader.status).to_contain_text("An empty picture. At T = 4 the teacher says")
        assert {f"{host}/browser/{name}.js" for name in ("data", "network", "widget", "teacher")} < set(reader.requests)
        assert [url for url in reader.requests if not url.startswith((f"{host}/", "data:"))] == []
        assert reader.complaints == []


def test_without_scripts_there_is_a_still(visit):
    reader = visit(java_script_enabled=False)
    still = reader.page.get_by_role("img", name="A test picture of a T-shirt")
    expect(still).to_be_visible()
    assert still.bounding_box()["height"] > 100
    expect(reader.page.get_by_text("A still image: scripts are off")).to_be_visible()
    expect(reader.canvas).to_be_hidden()


def test_the_still_shows_the_first_picture_and_says_so(student, shown):
    drawn = (FOLDER / "still.svg").read_text(encoding="utf-8")
    assert all(f">{name}</text>" in drawn for name in FASHION_CLASSES)
    for model in (student, fashion_teacher()):
        assert logits(model, shown[:1]).argmax() == FASHION_CLASSES.index("T-shirt") == shown.targets[0]


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_it_fits_and_can_be_hit(visit, width):
    reader = visit(viewport={"width": width, "height": 740})
    assert reader.page.evaluate("document.documentElement.scrollWidth") <= width
    for control in reader.page.locator("#kdft-browser :is(button, select, input, .drawing)").all():
        box = control.bounding_box()
        assert min(box["width"], box["height"]) >= 44, control


def test_it_follows_the_readers_wishes(visit):
    reader = visit(reduced_motion="reduce")
    bar = reader.page.locator("td.student i").first
    expect(bar).to_have_css("transition-duration", "0s")
    expect(bar).to_have_css("background-color", "rgb(213, 94, 0)")
    reader.page.evaluate("document.documentElement.dataset.theme = 'dark'")
    expect(bar).to_have_css("background-color", "rgb(230, 159, 0)")
    expect(visit(reduced_motion="no-preference").page.locator("td.student i").first).to_have_css(
        "transition-duration", "0.15s"
    )
