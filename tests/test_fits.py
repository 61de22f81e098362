"""The page of costs: its table, its figure in a Chromium, and the formulas behind both."""

from __future__ import annotations

import math
import re
import sys
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
import torch
from browsers import Reader, given_fields, resize, served, visits
from playwright.sync_api import expect
from test_play import LUMINANCE, ON_PHONE, WIDTHS, expect_room
from torch import nn

from kdft_lib.models import ConvNet

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "book/what-it-costs.md"
FOLDER = ROOT / "book/_extra/play"
BUILT = ROOT / "_build/html/what-it-costs.html"
sys.path[:0] = [str(ROOT / folder) for folder in ("tools", "benchmarks")]

import bare_page  # noqa: E402
import what_it_costs  # noqa: E402


@pytest.fixture(scope="module")
def stored():
    """What the page's figure is given."""
    return given_fields(FOLDER / "fits-data.js")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    bare_page.write("what-it-costs", "play", folder)
    return folder


@pytest.fixture
def visit(chromium, site):
    with visits(chromium, site / "page.html", Reader) as visit:
        yield visit


def seen(entry):
    return what_it_costs.Seen(*(entry[name] for name in what_it_costs.Seen._fields))


def rows():
    """The cells of each row of the table."""
    lines = (ROOT / "book/what-it-costs.txt").read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")][1:]


def number(cell):
    return float(cell.split()[0].replace(",", ""))


# ---- the table


def test_the_table_is_what_the_formulas_make_of_what_was_seen(stored):
    assert "{include} what-it-costs.txt" in PAGE.read_text(encoding="utf-8")
    found = rows()
    assert len(found) == len(what_it_costs.ROWS)
    for (key, (said, batch)), cells in zip(what_it_costs.ROWS.items(), found, strict=True):
        name, moves, *beside = key
        network = stored["networks"][name]
        given = seen(network["moves"][moves]), moves, batch
        teacher = seen(network["teacher"]) if beside else None
        expected = sum(what_it_costs.memory(*given, teacher=teacher).values()) / 2**20
        assert cells[:3] == [said, str(batch), f"{what_it_costs.digits(expected)} MiB"]
        least = 1000 * what_it_costs.operations(*given, teacher) / stored["rate"]
        assert number(cells[4]) == pytest.approx(least, rel=0.02)
        assert number(cells[6]) == pytest.approx(100 * number(cells[4]) / number(cells[5]), abs=1)
        if not beside:
            assert 100 * network["moves"][moves]["reached"] == pytest.approx(number(cells[6]), abs=1)
    assert stored["hardware"] in (ROOT / "book/what-it-costs.txt").read_text(encoding="utf-8")


def test_the_formulas_are_right_for_a_network_counted_by_hand():
    net = nn.Sequential(nn.Linear(6, 4, bias=False), nn.Sigmoid(), nn.Linear(4, 3, bias=False))
    found = what_it_costs.look(net, {"x": torch.zeros(1, 6)})
    kept = 4 * (6 + 4)  # The input, for the first weights; what the sigmoid made, for itself and the second.
    assert found == what_it_costs.Seen(36, 36, kept, 4 * (6 + 4), 2 * 36, 3)
    parts = what_it_costs.memory(found, "all", 10)
    assert parts == {"weights": 144, "gradients": 144, "optimiser": 288, "activations": 400, "logits": 360}
    assert what_it_costs.operations(found, "all", 10) == 10 * 3 * 72
    net[0].requires_grad_(False)
    found = what_it_costs.look(net, {"x": torch.zeros(1, 6)})
    assert (found.moving, found.kept) == (12, 4 * 4)
    beside = what_it_costs.memory(found, "head", 10, state=1, teacher=found)
    assert (beside["optimiser"], beside["teacher"]) == (48, 144 + 10 * (40 + 12))


def test_what_the_page_shows_to_measure_gives_what_the_table_reckons_with(stored, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
    exec(compile(code, "what-it-costs", "exec"), {"model": ConvNet(width=8), "sample": torch.randn(1, 1, 28, 28)})
    student = stored["networks"]["student"]["moves"]["all"]
    assert [int(word) for word in capsys.readouterr().out.split()] == [student["kept"], student["operations"]]


def test_the_page_says_what_was_measured():
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    found = {cells[0]: [number(cell) for cell in cells[1:]] for cells in rows()}
    missed = {name: formula / measured - 1 for name, (_, formula, measured, *_) in found.items()}
    far = {name: miss for name, miss in missed.items() if abs(miss) > 0.1}
    assert list(far) == ["the student, all of it", "EfficientNet-Lite0, its head"]
    assert all(-0.27 < miss < -0.13 for miss in far.values())
    assert "within a tenth of what was measured, but for two rows, where it is about a fifth too low" in text
    shares = {name: share for name, (*_, share) in found.items()}
    assert min(shares, key=shares.get) == "the student, all of it"
    assert max(shares, key=shares.get) == "MiniLM, its head"
    assert 12 < min(shares.values()) < 22
    assert 72 < max(shares.values()) < 88
    assert "from a sixth of the full rate, for the student, to four fifths, for MiniLM's head" in text
    assert all(1 / 3 < share / 30 < 3 for share in shares.values())
    assert "Who guesses 30 % is wrong by less than a factor of three in each row" in text
    alone, asking = found["the student, all of it"], found["the student, the shipped teacher beside it"]
    assert 3.5 < asking[4] / alone[4] < 6.5
    assert "makes the student's step four to six times as long" in text
    whole, update = found["MiniLM, all of it"], found["MiniLM, LoRA and its head"]
    assert 0.42 < update[2] / whole[2] < 0.53
    assert 0.55 < update[4] / whole[4] < 0.65
    assert "LoRA took about half of MiniLM's memory, and three fifths of its time" in text


# ---- the figure


def figure(reader):
    return reader.page.locator("#kdft-fits")


def two(value):
    """The number to two digits, as a script rounds; in whole numbers from a hundred on."""
    digits = 0 if value >= 99.5 else 1 - math.floor(math.log10(value))
    rounded = Decimal(value).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    return f"{float(rounded):,g}"


def said(value):
    """A number of bytes as the figure has it."""
    power = min(4, (int(value).bit_length() - 1) // 10)
    return f"{two(value / 2 ** (10 * power))}\u00a0{['B', 'KiB', 'MiB', 'GiB', 'TiB'][power]}"


def pull(reader, name, value):
    reader.page.locator(f"[name={name}]").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', { bubbles: true })); }",
        value,
    )


def expect_parts(reader, parts):
    for name, value in parts.items():
        mark = figure(reader).locator(f".memory [data-key={name}-value]")
        expect(mark).to_have_text(said(value) if value else "none")


SLIDER = {"pixels": [28, 32, 48, 64, 96, 128, 160, 192, 224], "tokens": [16, 32, 64, 128, 256, 512, 1024, 2048, 4096]}
STATES = {"AdamW": 2, "SGD, momentum": 1, "SGD": 0}


def test_it_reckons_as_the_formulas_do(visit, stored):
    reader = visit()
    page = reader.page
    for name, network in stored["networks"].items():
        page.get_by_label("Network").select_option(name)
        pull(reader, "size", SLIDER[network["unit"]].index(network["size"]))
        for moves in network["moves"].keys() - {"nothing"}:
            page.get_by_label({"all": "everything", "head": "the head"}.get(moves, moves), exact=True).check()
            for optimiser, state in STATES.items():
                page.get_by_label(optimiser, exact=True).check()
                parts = what_it_costs.memory(seen(network["moves"][moves]), moves, 8, state)
                expect_parts(reader, parts | {"together": sum(parts.values())})
        offered = page.locator("[name=kdft-moves]:enabled").evaluate_all("(all) => all.map((one) => one.value)")
        assert set(offered) == network["moves"].keys() - {"nothing"}


def test_a_step_takes_its_operations_at_the_rate_reached(visit, stored):
    reader = visit()
    page = reader.page
    page.get_by_label("Network").select_option("lite0")
    page.get_by_label("Device").select_option("cpu")
    network = stored["networks"]["lite0"]["moves"]
    reached = int(100 * network["all"]["reached"] + 0.5)
    expect(page.get_by_label("Of the peak rate")).to_have_value(str(reached))
    took = what_it_costs.operations(seen(network["all"]), "all", 8) / stored["rate"] / (reached / 100)
    status = figure(reader).get_by_role("status")
    steps = -(-10_000 * 3 // 8)
    expect(status).to_contain_text(f"{steps:,} steps take {two(steps * took / 60)}\u00a0min")
    page.get_by_label("Euros an hour").fill("100")
    expect(status).to_contain_text(f"cost {steps * took / 36:.2f} euros")
    page.get_by_label("the head", exact=True).check()
    expect(page.get_by_label("Of the peak rate")).to_have_value(str(int(100 * network["head"]["reached"] + 0.5)))
    expect(figure(reader).locator(".time [data-key=backward-value]")).to_have_text("none")


def test_a_teacher_costs_memory_and_time_or_disk(visit, stored):
    reader = visit()
    page, whole = reader.page, seen(stored["networks"]["smollm2"]["moves"]["all"])
    factor = 512 / stored["networks"]["smollm2"]["size"]
    expect(page.get_by_label("Teacher, times as large")).to_be_hidden()
    page.get_by_label("asked at each step").check()
    expect(page.get_by_label("Views kept of each")).to_be_hidden()
    beside = 4 * 10 * whole.numbers + 8 * factor * (10**0.5 * whole.widest + 4 * whole.outputs)
    expect_parts(reader, {"teacher": beside})
    page.get_by_label("answers kept").check()
    expect_parts(reader, {"teacher": 0})
    pull(reader, "views", 2)
    disk = 10_000 * 3 * 512 * (64 * 6 + 2)
    expect(figure(reader).get_by_role("status")).to_contain_text(f"its answers {said(disk)} on disk")


def test_precision_halves_what_it_halves(visit, stored):
    reader = visit()
    network = stored["networks"]["smollm2"]
    whole, factor = seen(network["moves"]["all"]), 8 * 512 / network["size"]
    for name, number, copied in (("mixed", 4, 2), ("bfloat16", 2, 0)):
        reader.page.get_by_label(name, exact=True).check()
        weights = number * whole.numbers + copied * whole.moving
        kept = factor * max(whole.kept, whole.widest) / 2
        expect_parts(reader, {"weights": weights, "gradients": number * whole.moving, "activations": kept})


def test_another_language_model_is_sized_like_llama(visit):
    """Of 6.7 billion numbers, 32 layers, a width of 4,096, and LoRA's rank of 8 for all of its matrices."""
    reader = visit()
    reader.page.get_by_label("Network").select_option("llama")
    numbers = 2 * 32_000 * 4096 + 32 * (4 * 4096**2 + 3 * 4096 * 11_008 + 2 * 4096) + 4096
    pull(reader, "numbers", 9.85)  # The nearest place of the slider.
    expect(reader.page.get_by_role("slider", name="Parameters")).to_have_attribute("aria-valuetext", "7.1\u00a0bn")
    assert abs(10**9.85 / numbers - 1) < 0.06
    reader.page.get_by_label("LoRA", exact=True).check()
    update = 8 * 32 * (4 * 2 * 4096 + 3 * (4096 + 11_008))
    text = figure(reader).locator(".memory [data-key=gradients-value]").text_content()
    assert 2**20 * float(text.split()[0]) == pytest.approx(4 * update, rel=0.1)


def test_by_keyboard(visit):
    reader = visit()
    page = reader.page
    page.get_by_label("Network").focus()
    for name in ("Device", "Its memory, GiB", "Tokens of a text", "In a batch"):
        page.keyboard.press("Tab")
        expect(page.get_by_label(name)).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("In a batch")).to_have_attribute("aria-valuetext", "16")
    page.keyboard.press("End")
    expect(figure(reader).get_by_role("status")).to_contain_text("It does not fit")
    page.get_by_label("Its memory, GiB").fill("10000")
    expect(figure(reader).get_by_role("status")).to_contain_text("It fits")


def test_by_touch(visit):
    reader = visit(**ON_PHONE)
    before = figure(reader).locator(".memory").get_attribute("aria-label")
    reader.page.get_by_label("LoRA", exact=True).tap()
    expect(figure(reader).locator(".memory")).not_to_have_attribute("aria-label", before)


def test_nothing_that_is_typed_breaks_it(visit):
    reader = visit()
    for name in ("Its memory", "Peak, 10", "Euros"):
        for typed in ("", "0", "-3"):
            reader.page.get_by_label(name).fill(typed)
            expect(figure(reader).get_by_role("status")).to_contain_text(re.compile("^It .*fit.* steps take .* cost"))
            assert "NaN" not in figure(reader).inner_text()


# ---- where it stands


def test_without_scripts_there_is_a_still(visit):
    reader = visit(java_script_enabled=False)
    still = figure(reader).get_by_role("img")
    still.scroll_into_view_if_needed()
    expect(still).to_be_visible()
    assert len(still.get_attribute("alt")) > 100
    expect(figure(reader).locator(".app")).to_be_hidden()


def test_the_still_says_what_it_shows(stored):
    html = PAGE.read_text(encoding="utf-8")
    size = re.search(r'width="(\d+)" height="(\d+)"', (FOLDER / "fits.svg").read_text(encoding="utf-8"))
    words = re.search(rf'<img src="play/fits.svg" {size[0]} [^>]* alt="([^"]+)"', html)[1]
    whole, factor = seen(stored["networks"]["smollm2"]["moves"]["all"]), 512 // stored["networks"]["smollm2"]["size"]
    parts = what_it_costs.memory(whole, "all", 8 * factor)
    for name, value in parts.items():
        assert f"{name} {said(value)}".replace("\u00a0", " ") in words
    assert f"together {said(sum(parts.values()))} of 8 GiB".replace("\u00a0", " ") in words


def test_a_still_stays_where_its_data_does_not_arrive(visit):
    reader = visit(silent=False)
    reader.page.route("**/fits-data.js", lambda route: route.abort())
    reader.page.reload()
    expect(figure(reader).locator(".still")).to_be_visible()
    expect(figure(reader).locator(".app")).to_be_hidden()


def expect_all_from(host, reader):
    expect(figure(reader).get_by_role("status")).not_to_be_empty()
    expect(figure(reader).locator(".still")).to_be_hidden()
    assert {f"{host}/play/{name}.js" for name in ("fits-data", "draw", "fits")} < set(reader.requests)
    assert [url for url in reader.requests if not url.startswith((f"{host}/", "data:"))] == []


def expect_fields(reader):
    for field in figure(reader).locator(":is(select, [type=number]):visible").all():
        assert min(field.bounding_box()[side] for side in ("width", "height")) >= 44


def test_nothing_comes_from_another_host(visit, site):
    with served(site) as host:
        expect_all_from(host, visit(f"{host}/page.html"))


@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_and_can_be_hit(visit, width):
    reader = visit(viewport={"width": width, "height": 740})
    reader.page.get_by_label("answers kept").check()
    reader.page.get_by_label("Network").select_option("llama")  # Now no slider is hidden.
    expect(figure(reader).get_by_role("status")).not_to_be_empty()
    expect_room(reader, width)
    expect_fields(reader)


@pytest.mark.site
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_as_built_it_is_all_there_and_fits_and_is_legible(visit, scheme):
    with served(BUILT.parent) as host:
        reader = visit(f"{host}/{BUILT.name}", color_scheme=scheme)
        expect_all_from(host, reader)
    for width in WIDTHS:
        resize(reader.page, {"width": width, "height": 740})
        expect_fields(reader)
        assert reader.page.evaluate("document.documentElement.scrollWidth") <= width
    expect(reader.page.locator("html")).to_have_attribute("data-theme", scheme)
    luminance = figure(reader).evaluate(LUMINANCE)
    ground = luminance.pop("ground")
    for name, value in luminance.items():
        contrast = (max(ground, value) + 0.05) / (min(ground, value) + 0.05)
        assert contrast >= (4.5 if name in ("text", "muted", "link") else 3), name
