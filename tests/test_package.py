"""The package as a whole: its floors, its weight, its wheel, and the files around it."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import nbformat
import pytest
import yaml

import kdft_lib

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "kdft_lib"
FLOORS = [
    "plots",
    "files",
    "progress",
    "losses",
    "data",
    "audio",
    "datasets",
    "models",
    "unbalanced",
    "retrieval",
    "metrics",
    "features",
    "sharding",
    "answers",
    "teachers",
    "objectives",
    "strategies",
    "training",
    "export",
    "experiments",
]
"""From the ground up: a module imports only from those before it."""
ALONE = {"plots": [], "files": [], "progress": [], "losses": [], "data": ["progress"]}
"""What imports nothing of ours but itself and what is named: figures take numbers, losses take tensors."""
INTERNAL = {"files", "progress", "answers", "sharding", "unbalanced", "retrieval"}


def imported(path):
    """Modules of kdft_lib that a file imports when it is loaded, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "kdft_lib":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kdft_lib."):
            yield node.module.split(".")[1]


def test_modules_import_only_from_below():
    for place, name in enumerate(FLOORS):
        files = [*PACKAGE.glob(f"{name}.py"), *PACKAGE.glob(f"{name}/*.py")]
        assert files, name
        allowed = {name, *ALONE[name]} if name in ALONE else {*FLOORS[: place + 1]}
        for path in files:
            assert set(imported(path)) <= allowed, f"{path.name} imports {set(imported(path)) - allowed}"
    assert {path.stem for path in PACKAGE.iterdir()} <= {*FLOORS, "__init__", "py", "assets", "__pycache__"}


def test_a_file_that_passes_350_lines_is_two():
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "recipes").glob("*.py")]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 350, path.name


@pytest.fixture(scope="module")
def imported_alone():
    """Of a new interpreter that has loaded torch: what ``import kdft_lib`` takes, in seconds of the processor, which a
    busy neighbor does not lengthen; and what is loaded beside when its largest modules are.
    """
    code = (
        "import json, sys, time, torch; before = set(sys.modules); start = time.process_time(); import kdft_lib;"
        "took = time.process_time() - start; import kdft_lib.training, kdft_lib.teachers, kdft_lib.experiments;"
        "print(json.dumps([took, sorted(set(sys.modules) - before)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_import_costs_little_beside_torchs(imported_alone):
    took, _ = imported_alone
    print(f"\nimport kdft_lib, after torch: {took:.3f} s")
    assert took < 0.1


def test_heavy_libraries_load_where_they_are_used(imported_alone):
    _, loaded = imported_alone
    heavy = {"torchvision", "torchmetrics", "matplotlib", "pandas", "sklearn", "scipy", "accelerate", "tensorboard"}
    assert "kdft_lib.experiments" in loaded
    assert heavy & set(loaded) == set()


def test_the_package_names_its_modules():
    assert set(kdft_lib.__all__) == {*FLOORS} - INTERNAL
    assert sorted(kdft_lib.__all__) == kdft_lib.__all__
    for name in kdft_lib.__all__:
        assert getattr(kdft_lib, name).__doc__
    with pytest.raises(AttributeError, match="has no attribute 'distill'; it has audio, data"):
        _ = kdft_lib.distill


def test_public_names_are_documented_with_an_example():
    """Every public function and class says what it does; every function shows it."""
    for name in kdft_lib.__all__:
        module = getattr(kdft_lib, name)
        for public in getattr(module, "__all__", []):
            thing = getattr(module, public)
            if callable(thing) and getattr(thing, "__module__", "").startswith("kdft_lib"):
                assert thing.__doc__, f"{name}.{public}"


@pytest.mark.slow
def test_the_wheel_brings_all_that_the_book_shows(tmp_path):
    sys.path.insert(0, str(ROOT / "tools"))
    import run_nbval

    site = run_nbval.install_wheel(tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = {
        str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in tracked if not name.endswith(".part")} <= names
    assert not [name for name in names if name.startswith(("tests", "book", "recipes", "figures", "tools"))]
    assert wheel.stat().st_size < 3 * 2**19
    code = "import kdft_lib, kdft_lib.models as m; print(kdft_lib.__file__, m.fashion_teacher().card['labels'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(site)},
    )
    assert done.stdout.split() == [str(site / "kdft_lib/__init__.py"), "55000"]
    print(f"\nthe wheel: {wheel.stat().st_size / 1024:.0f} KiB")


@pytest.fixture
def ten_lines():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    return code


def test_chapter_00_ends_with_readmes_ten_lines(ten_lines):
    lines = [line for line in ten_lines.splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(lines) <= 10
    chapter = nbformat.read(ROOT / "book/00-ten-minutes.ipynb", as_version=4)
    last = [cell.source for cell in chapter.cells if cell.cell_type == "code"][-1]
    ours, theirs = (
        [ast.dump(line) for line in ast.parse(source).body if not isinstance(line, ast.Import | ast.ImportFrom)]
        for source in (ten_lines, last)
    )
    assert ours == theirs


@pytest.mark.slow
def test_readmes_ten_lines_run(printed, ten_lines):
    """A fifth of their steps, which are enough to be far above chance."""
    code, changed = re.subn(r"\bsteps=400\b", "steps=80", ten_lines)
    assert changed == 1
    assert float(printed(code)) > 0.65


def test_conda_agrees_with_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = sorted(entry for entry in environment if isinstance(entry, str) and entry not in ("pip",))
    wanted = [*project["dependencies"], *project["optional-dependencies"]["notebooks"]]
    renamed = {"torch": "pytorch"}
    expected = [re.sub(r"^[A-Za-z0-9_-]+", lambda found: renamed.get(found[0], found[0]), entry) for entry in wanted]
    assert conda == sorted([*expected, f"python{project['requires-python']}"])
    extras = ",".join(project["optional-dependencies"])
    assert environment[-1] == {"pip": [f"-e .[{extras}]"]}


def test_versions_and_addresses_agree():
    address = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == kdft_lib.__version__
    assert f"## [{kdft_lib.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert citation["repository-code"] == project["urls"]["Repository"] == address
    site = yaml.safe_load((ROOT / "_config.yml").read_text())["html"]["baseurl"]
    assert citation["url"] == project["urls"]["Homepage"] == site
    for name in ("README.md", "book/intro.md"):
        found = set(re.findall(r"https://github\.com/[\w-]+/[\w-]+", (ROOT / name).read_text(encoding="utf-8")))
        assert found == {address}, name


def test_workflows_are_valid_and_pinned():
    workflows = sorted((ROOT / ".github/workflows").glob("*.yml"))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*command, *map(str, workflows)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    uses = re.findall(r"uses: (\S+)(.*)", "\n".join(path.read_text() for path in workflows))
    assert uses
    for action, comment in uses:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), action


def test_the_jobs_on_github_run_together_what_every_change_must_pass():
    (parts,) = re.findall(r"^test: ([a-z ]+) ##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    wanted = re.findall(r"^ +.*make -j 2 (.+)\n +set -- (.+)$", (ROOT / ".ci/run").read_text(encoding="utf-8"), re.M)
    jobs = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]
    runs = {name: "\n".join(step.get("run", "") for step in job["steps"]) for name, job in jobs.items()}
    floor = runs.pop("floor")
    run = re.findall(r"^bash \.ci/run ([a-z- ]+\b)(?! *=)", "\n".join(runs.values()), re.M)
    assert {*" ".join(run).split()} == {*" ".join([parts, *wanted[0]]).split()} - {"test"}
    (oldest,) = re.findall(
        r'unit slow INSTALL="uv pip install -q --resolution lowest-direct" EXTRAS="([a-z,]+)"$', floor
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {*oldest.split(",")} == project["optional-dependencies"].keys() - {"export"}
    assert jobs["unit"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]
    shards = jobs["notebooks"]["strategy"]["matrix"]["shard"]
    assert shards == [f"{number}/{len(shards)}" for number in range(1, len(shards) + 1)]


def test_make_lists_its_targets():
    done = subprocess.run(["make", "-s", "-C", str(ROOT)], capture_output=True, text=True, check=True)
    listed = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("make ")}
    assert {"setup", "book", "test", "notebooks", "results", "teacher", "serve", "lint", "clean"} <= listed
