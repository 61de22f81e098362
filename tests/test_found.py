"""How the book is found, cited and kept: metadata, previews, dates, downloads, links, its address, its print."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
import yaml
from PIL import Image, ImageFont

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
SITE = ROOT / "_build/html"
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
ADDRESS, HOME = CONFIG["repository"]["url"], CONFIG["html"]["baseurl"]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tools/extensions")]

import check_pages  # noqa: E402
import citation  # noqa: E402
import outside_links  # noqa: E402
import print_book  # noqa: E402
import repository  # noqa: E402
import social_card  # noqa: E402

PAGES = check_pages.pages()
NOTEBOOKS = sorted(BOOK.glob("*.ipynb"))


def files(root=ROOT):
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and (root / name).is_file()]


@pytest.fixture
def tree(tmp_path):
    """A copy of the working tree, known to git."""
    copy = tmp_path / "copy"
    for name in files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    subprocess.run(["git", "init", "-q"], cwd=copy, check=True)
    subprocess.run(["git", "add", "-A"], cwd=copy, check=True)
    return copy


@pytest.fixture
def html():
    """The HTML of a page as it was built."""
    if not (SITE / f"{PAGES[-1]}.html").exists():
        pytest.fail("the book is not built: make book")
    return lambda page: (SITE / f"{page}.html").read_text(encoding="utf-8")


def tag(text, name):
    """The content of a page's one tag of that name."""
    (content,) = re.findall(rf'<meta (?:name|property)="{re.escape(name)}" content="([^"]*)"', text)
    return unescape(content)


# ---- another home


@pytest.mark.parametrize(
    ("owner", "name", "folder"), [("Some-One", "course.on_kd", "course.on_kd/"), ("Someone", "Someone.github.io", "")]
)
def test_the_book_moves_as_a_whole_and_back(tree, owner, name, folder):
    url, site = f"https://github.com/{owner}/{name}", f"https://{owner.lower()}.github.io/{folder}"
    before = {path: (tree / path).read_bytes() for path in files(tree)}
    assert repository.move(tree, f"{url}/")
    for path in files(tree):
        assert ADDRESS.split("/")[-2].encode() not in (tree / path).read_bytes(), path
    config = yaml.safe_load((tree / "_config.yml").read_text(encoding="utf-8"))
    assert (config["repository"]["url"], config["html"]["baseurl"]) == (url, site)
    cited = yaml.safe_load((tree / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["repository-code"], cited["url"]) == (url, site)
    assert tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Homepage"] == site
    colab = url.replace("https://github.com", "https://colab.research.google.com/github")
    for path in NOTEBOOKS:
        notebook = nbformat.read(tree / "book" / path.name, as_version=4)
        nbformat.validate(notebook)
        text = "\n".join(cell.source for cell in notebook.cells)
        assert f"({colab}/blob/main/book/{path.name})" in text
        assert f'@ git+{url}"' in text
    repository.move(tree, ADDRESS)
    assert {path: (tree / path).read_bytes() for path in files(tree)} == before


@pytest.mark.parametrize("url", ["", "github.com/a/b", "https://gitlab.com/a/b", "https://github.com/a", "a b"])
def test_an_address_where_colab_finds_nothing_is_refused(url):
    done = subprocess.run([sys.executable, ROOT / "tools/repository.py", url], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        f"The address must look like https://github.com/owner/name, since Colab opens GitHub alone, and is {url!r}\n"
    )


# ---- to be cited


def test_the_citation_is_that_of_the_file():
    from pybtex.database import parse_string

    about = citation.read()
    ((key, entry),) = parse_string(citation.bibtex(about), "bibtex").entries.items()
    assert key == f"kdft{about['date-released'].year}"
    assert entry.fields["title"].strip("{}") == about["title"]
    assert entry.fields["version"] == str(about["version"])
    assert entry.fields["url"] == about["url"] == HOME
    assert [str(person).strip("{}") for person in entry.persons["author"]] == [a["name"] for a in about["authors"]]
    people = about | {"authors": [{"given-names": "Ada", "family-names": "van Dijk"}, {"name": "A group"}]}
    written = parse_string(citation.bibtex(people), "bibtex").entries[key].persons["author"]
    assert (written[0].first_names, written[0].last_names) == (["Ada"], ["Dijk"])
    assert str(written[1]) == "{A group}"
    assert citation.sentence(people).startswith(
        f"Ada van Dijk, A group ({about['date-released'].year}). {about['title']}."
    )


def test_a_chapter_is_cited_with_its_number_and_page():
    from pybtex.database import parse_string

    ((key, entry),) = parse_string(citation.bibtex(citation.read(), "09-staying-close"), "bibtex").entries.items()
    assert (key, entry.type) == (f"kdft{citation.read()['date-released'].year}staying", "incollection")
    assert entry.fields["title"].strip("{}") == "Staying close: learn the new without losing the old"
    assert entry.fields["booktitle"].strip("{}") == citation.read()["title"]
    assert (entry.fields["chapter"], entry.fields["url"]) == ("9", f"{HOME}09-staying-close.html")


@pytest.mark.site
def test_built_pages_say_how_to_cite(html):
    text = unescape(re.sub(r"<[^>]+>", "", html("cite")))
    assert text.count(citation.bibtex(citation.read())) == 1
    assert text.count(citation.bibtex(citation.read(), "04-soft-targets")) == 1
    assert 'href="cite.html"' in html("intro")


# ---- to be found


def test_cards_hold_long_titles():
    letters = ImageFont.truetype(social_card.font(social_card.FAMILY, bold=True), 46)
    lines = social_card.wrap("distillation " * 40, letters, 590, 5)
    assert len(lines) == 5
    assert lines[-1].endswith("…")
    assert max(map(letters.getlength, lines)) <= 590
    diagram = BOOK.parent / "kdft_lib/assets/diagrams/soft-targets.svg"
    drawn = [
        social_card.card("Losses", "What a model minimises", "kdft", "example.org", picture)
        for picture in (None, diagram, BOOK / "images/chapters.svg")
    ]
    for content in drawn:
        assert Image.open(io.BytesIO(content)).size == (1200, 630)
    assert len(set(drawn)) == 3


@pytest.mark.site
def test_built_pages_are_described(html):
    titles, descriptions = set(), set()
    for page in PAGES:
        text = html(page)
        description, image = tag(text, "description"), tag(text, "og:image")
        assert 35 <= len(description) <= 250, page
        assert description == tag(text, "og:description")
        titles.add(re.search(r"<title>(.*?)</title>", text, flags=re.S)[1])
        descriptions.add(description)
        assert re.findall('<link rel="canonical" href="(.*?)"', text) == [f"{HOME}{page}.html"] == [tag(text, "og:url")]
        card = SITE / image.removeprefix(HOME)
        assert Image.open(card).size == (int(tag(text, "og:image:width")), int(tag(text, "og:image:height")))
        assert card.stat().st_size < 200_000, page
        assert not [target for target in check_pages.Links(text).targets if card.name in target], (
            "the page loads its card"
        )
    assert len(titles) == len(descriptions) == len(PAGES)
    assert html("index") == html("intro")


@pytest.mark.site
def test_built_chapters_have_cards_of_their_own(html):
    cards = {path.name: path.read_bytes() for path in (SITE / "cards").glob("*.png")}
    assert set(cards) >= {f"{page.replace('/', '-')}.png" for page in PAGES}
    assert len(set(cards.values())) == len(cards)


@pytest.mark.site
def test_built_pages_have_data_for_machines(html):
    for page in PAGES:
        (data,) = map(json.loads, re.findall(r'<script type="application/ld\+json">(.*?)</script>', html(page)))
        assert data["@context"] == "https://schema.org"
        assert data["description"] == tag(html(page), "description")
        assert [author["name"] for author in data["author"]] == citation.names(citation.read())
        if page == "intro":
            assert (data["@type"], data["url"]) == ("Book", HOME)
            chapters = [f"{HOME}{name}.html" for name in PAGES if re.match(r"\d\d-", name)]
            assert [chapter["url"] for chapter in data["hasPart"]] == chapters
        else:
            assert data["url"] == f"{HOME}{page}.html"
            assert data["isPartOf"]["@id"] == f"{HOME}#book"
        if re.match(r"\d\d-", page):
            assert data["@type"] == ["Chapter", "LearningResource"]
            assert data["position"] == int(page[:2])
            assert len(data["teaches"]) > 40


@pytest.mark.site
def test_built_sitemap_lists_every_page_once(html):
    tree = ElementTree.parse(SITE / "sitemap.xml")
    listed = [entry.text for entry in tree.iter("{http://www.sitemaps.org/schemas/sitemap/0.9}loc")]
    assert sorted(listed) == sorted(f"{HOME}{page}.html" for page in PAGES)


@pytest.mark.site
def test_built_pages_lead_to_where_their_text_is_written(html):
    for page in PAGES:
        (path,) = re.findall(rf'href="{ADDRESS}/(?:edit|tree)/main/([^"]+)"', html(page))
        assert (ROOT / path).exists(), page
        if page.startswith("api/") and page != "api/index":
            assert path.removesuffix(".py") == f"kdft_lib/{page.removeprefix('api/')}"
        elif page in ("changelog", "cite"):
            assert path in ("CHANGELOG.md", "CITATION.cff")
        else:
            assert Path(path).with_suffix("") == Path("book", page)


@pytest.mark.site
def test_built_reference_tears_no_sentence_at_its_colon(html):
    assert [page for page in PAGES if page.startswith("api/") and "Return type" in html(page)] == []


@pytest.mark.site
def test_built_chapters_have_the_numbers_of_their_files(html):
    chapters = [page for page in PAGES if page[0].isdigit()]
    numbers = [re.findall(r'<h1><span class="section-number">(\d+)\. </span>', html(page)) for page in chapters]
    assert numbers == [[str(int(page[:2]))] if page > "01" else [] for page in chapters]


@pytest.mark.site
def test_built_pages_say_when_they_were_changed(html):
    git = ["git", "-C", str(ROOT)]
    shallow = subprocess.run([*git, "rev-parse", "--is-shallow-repository"], capture_output=True, text=True).stdout
    if shallow.strip() != "false":
        pytest.skip("git knows no dates here")
    for page in ("01-background", "21-outlook", "glossary"):
        (path,) = BOOK.glob(f"{page}.*")
        log = [*git, "log", "-1", "--format=%ad", "--date=format-local:%-d %B %Y", "--", str(path)]
        day = subprocess.run(log, capture_output=True, text=True, env=os.environ | {"TZ": "UTC"}).stdout.strip()
        assert f"Last updated on {day}." in html(page)
    assert not [page for page in PAGES if "Last updated on" not in html(page)]


@pytest.mark.site
def test_built_changelog_is_the_file(html):
    for version in re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.M):
        assert f"<h2>{version}<" in html("changelog")
    assert "##" not in (BOOK / "changelog.md").read_text(encoding="utf-8")


@pytest.mark.site
def test_built_page_for_wrong_addresses_works_at_any_depth(html):
    path = "/" + HOME.split("/", 3)[3]
    text = html("404")
    targets = [target for target in check_pages.Links(text).targets if not target.startswith(("#", "https:", "data:"))]
    assert [target for target in targets if not target.startswith(path)] == []
    assert [line for line in check_pages.broken_links(SITE, path) if line.startswith("404.html")] == []
    for page in ("intro", "search", "faq", "api/index"):
        assert f'<a href="{path}{page}.html">' in text
    assert "noindex" in text or "404.html" not in (SITE / "sitemap.xml").read_text()


@pytest.mark.site
def test_built_notebooks_can_be_downloaded(html):
    with zipfile.ZipFile(SITE / "kdft-notebooks.zip") as archive:
        packed = {Path(name).name: archive.read(name) for name in archive.namelist()}
    assert packed == {path.name: path.read_bytes() for path in NOTEBOOKS}
    for path in NOTEBOOKS:
        (link,) = (
            target
            for target in check_pages.Links(html(path.stem)).targets
            if target.endswith(".ipynb") and "://" not in target
        )
        assert (SITE / link).read_bytes() == path.read_bytes()
    assert 'href="kdft-notebooks.zip"' in html("intro")


# ---- to be kept


def build(source, config=ROOT / "_config.yml", *options, **environment):
    command = [
        sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", "book",
        "--path-output", ".", "-W", "--keep-going",
        "--config", str(config), "--toc", str(source / "_toc.yml"), *options,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def small(tmp_path):
    """A book of two pages, outside git."""
    for folder in ("_static", "_templates"):
        shutil.copytree(BOOK / folder, tmp_path / "book" / folder)
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: intro\nchapters: [{file: cite}]\n")
    (tmp_path / "book/intro.md").write_text("# A start\n\nA first paragraph, with words enough to describe the page.\n")
    (tmp_path / "book/cite.md").write_text("# How to cite\n\nA first paragraph.\n\n```{citation}\n```\n")
    (tmp_path / "book/references.bib").touch()
    shutil.copy(BOOK / "torch.inv", tmp_path / "book")
    (tmp_path / "book/_extra").mkdir()
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("where", ["outside git", "without git", "shallow"])
def test_without_a_history_pages_have_no_date_and_keep_the_rest(small, where, tmp_path):
    environment = {}
    if where == "without git":
        environment["PATH"] = str(tmp_path)
    if where == "shallow":
        git = ["git", "-C", str(small), "-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run([*git, "init", "-q"], check=True)
        for message in ("one", "two"):
            (small / "note").write_text(message)
            subprocess.run([*git, "add", "-A"], check=True)
            subprocess.run([*git, "commit", "-qm", message], check=True)
        clone = small / "clone"
        subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{small}", str(clone)], check=True)
        small = clone
        (small / "book/_extra").mkdir(exist_ok=True)
    build(small, **environment)
    text = (small / "_build/html/intro.html").read_text(encoding="utf-8")
    assert "Last updated" not in text
    assert "_sources/intro.md" in text
    assert (small / "_build/html/sitemap.xml").exists()
    assert (small / "_build/html/404.html").exists()


@pytest.mark.slow
def test_a_second_build_keeps_every_page_in_the_sitemap(small):
    (small / "_toc.yml").write_text("format: jb-book\nroot: intro\nchapters: [{file: cite}, {file: other}]\n")
    for text in ("Read twice.", "Read and changed."):
        (small / "book/other.md").write_text(f"# Another page\n\n{text}\n")
        build(small)
    listed = (small / "_build/html/sitemap.xml").read_text()
    assert all(f"{HOME}{page}.html" in listed for page in ("intro", "cite", "other"))


def test_a_doi_is_asked_for_at_its_registry():
    assert (
        outside_links.ask_the_registry(None, "https://doi.org/10.1038/x-1") == "https://doi.org/api/handles/10.1038/x-1"
    )
    assert outside_links.ask_the_registry(None, "https://arxiv.org/abs/1503.02531") is None


@pytest.mark.slow
def test_every_address_outside_is_on_the_list(tmp_path):
    """The builder of `make links`, with every address left alone."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    extensions = config["sphinx"]["local_extensions"]
    config["sphinx"]["local_extensions"] = {name: str(ROOT / folder) for name, folder in extensions.items()}
    config["sphinx"]["config"]["linkcheck_ignore"] = [".*"]
    (tmp_path / "_config.yml").write_text(yaml.safe_dump(config, allow_unicode=True))
    (tmp_path / "book").symlink_to(BOOK)
    shutil.copy(ROOT / "_toc.yml", tmp_path)
    build(tmp_path, tmp_path / "_config.yml", "--builder", "custom", "--custom-builder", "linkcheck")
    output = (tmp_path / "_build/linkcheck/output.json").read_text(encoding="utf-8").splitlines()
    listed = {json.loads(line)["uri"].rstrip("/") for line in output}
    wanted = set()
    for path in [*BOOK.rglob("*.md"), *BOOK.glob("*.bib"), *(ROOT / name for name in outside_links.FILES)]:
        wanted |= outside_links.addresses(path.read_text(encoding="utf-8"))
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        wanted |= outside_links.addresses("\n".join(cell.source for cell in cells if cell.cell_type == "markdown"))
    assert len(wanted) > 100
    asked = {outside_links.ask_the_registry(None, address) or address.rstrip("/") for address in wanted}
    assert asked - listed == set()


def test_the_links_are_checked_every_week():
    workflow = yaml.safe_load((ROOT / ".github/workflows/weekly.yml").read_text(encoding="utf-8"))
    assert {"run": "make links"}.items() <= workflow["jobs"]["links"]["steps"][-1].items()
    assert workflow[True]["schedule"]


def test_newer_releases_of_pinned_themes_are_tried_every_week():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    pinned = sorted(entry.split("==")[0] for entry in extras["book"] if "==" in entry)
    workflow = yaml.safe_load((ROOT / ".github/workflows/weekly.yml").read_text(encoding="utf-8"))
    steps = [step.get("run") for step in workflow["jobs"]["themes"]["steps"]]
    assert pinned == ["pydata-sphinx-theme", "sphinx-book-theme"]
    assert steps[-2:] == [f".venv/bin/pip install --upgrade {' '.join(pinned)}", "make book test-site"]


def test_the_published_site_has_its_history_and_its_print():
    steps = yaml.safe_load((ROOT / ".github/workflows/site.yml").read_text(encoding="utf-8"))["jobs"]["build"]["steps"]
    assert steps[0]["with"]["fetch-depth"] == 0
    assert "make pdf" in [step.get("run") for step in steps]
    assert f"({HOME}{print_book.BOOK.name})" in (BOOK / "intro.md").read_text(encoding="utf-8")


@pytest.mark.site
def test_built_pages_are_printed_as_one_book(html, chromium, tmp_path):
    from pypdf import PdfReader

    printer = print_book.Printer(chromium.new_page(), HOME)
    parts = [("", ["intro"]), ("Back matter", ["cite", "changelog"])]
    print_book.print_book(printer, parts).write(tmp_path / "book.pdf")
    reader = PdfReader(tmp_path / "book.pdf")
    texts = [" ".join(page.extract_text().split()) for page in reader.pages]
    first, (part, pages) = reader.outline[0], (reader.outline[1], reader.outline[2])
    assert (first.title, part.title) == ("Shrink a model, or adapt one", "Back matter")
    assert citation.read()["title"] in texts[0]
    for entry in (first, *pages):
        number = reader.get_destination_page_number(entry)
        assert entry.title in texts[number]
        assert f"{entry.title} {number + 1}" in texts[1]
        assert re.search(rf"(^| ){number + 1}( |$)", texts[number]), "the page's own number"
    links = [link.get_object() for page in reader.pages for link in page.get("/Annots") or []]
    inside = [link["/Dest"][0].get_object() for link in links if "/Dest" in link]
    assert reader.pages[reader.get_destination_page_number(pages[0])].get_object() in inside
    assert [link for link in links if "file:" in str((link.get("/A") or {}).get("/URI"))] == []
    assert reader.metadata.title == citation.read()["title"]
