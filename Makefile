# kdft: `make book` builds the site, `make test` tests what it shows; `make` alone lists the targets.
#
# PYTHON       the interpreter for the virtual environment (3.11 or newer)
# TORCH_INDEX  PyTorch's CPU index, where the plain build with CUDA is too large; its address is on
#              https://pytorch.org/get-started/locally (for Linux, pip, CPU: what follows --index-url)
# SHARD        which share of the notebooks nbval runs: 1/2 is the first of two
# KDFT_DATA    a folder with Fashion-MNIST's four files, if they are somewhere unusual

PYTHON ?= python3
TORCH_INDEX ?=
SHARD ?= 1/1
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install -q
EXTRAS := notebooks,vision,language,speech,whisper,sequences,solar,export,tools,book,course,test
INSTALLED := $(VENV)/installed
# Outputs of runs that nobody watches have no progress bars.
export TQDM_DISABLE := 1

.DEFAULT_GOAL := help
.PHONY: help setup book pdf links repository test lint unit nbval slow test-site lighthouse colab-packages colab notebooks results teacher student figures printed play bench peers costs course mutants serve clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## make .venv, and install what pip does not bring; says what it installs, and what for
	@$(BIN)/python tools/set_up.py

book: setup ## build the site into _build/html
	@$(BIN)/python tools/check_notebooks.py
	$(BIN)/jupyter-book build book --path-output . --config $(CURDIR)/_config.yml --toc $(CURDIR)/_toc.yml -W -n --keep-going
	@$(BIN)/python tools/check_pages.py

pdf: book ## build the site and print it as one PDF, which lies beside its pages
	$(BIN)/python tools/print_book.py

links: $(INSTALLED) ## ask every address outside whether it still answers; the list is in _build/linkcheck
	$(BIN)/jupyter-book build book --path-output . --config $(CURDIR)/_config.yml --toc $(CURDIR)/_toc.yml --builder custom --custom-builder linkcheck

repository: $(INSTALLED) ## name another home everywhere: make repository URL=https://github.com/owner/name
	@$(BIN)/python tools/repository.py $(URL)

test: lint unit nbval ## lint, types, unit tests, doctests, checks of the book, every notebook; all but `slow` and the built site
	@echo "Passed: ruff, mypy, unit tests, doctests, the checks of the book, and nbval on every notebook."

lint: $(INSTALLED) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: setup ## unit tests, doctests and the checks of the book
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal --durations=20 -m "not slow and not site"

nbval: setup ## every notebook, two at a time; SHARD=1/2 for one of two shares
	$(BIN)/python tools/run_nbval.py --shard $(SHARD)

slow: setup ## what takes long: every recipe for a few steps, runs on two processes and runs killed, others' libraries, the course graded, small builds
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal --durations=20 -m "slow and not site"

test-site: setup ## open every page of the built site in a browser, and try what can be moved
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist worksteal -m site $(addprefix tests/test_,site.py browser.py play.py fits.py found.py course.py)

lighthouse: book ## ask Lighthouse of the intro, the longest chapter and an API page (it wants Node 20 or newer)
	$(BIN)/python tools/run_lighthouse.py

colab-packages: ## install what Colab has into _build/colab
	@$(PYTHON) tools/run_colab.py --prepare

colab: setup colab-packages ## run the chapter that installs the most as Colab does, from what is committed; NOTEBOOKS="book/01-….ipynb …" for others
	$(BIN)/python tools/run_colab.py $(NOTEBOOKS)

notebooks: setup ## execute every notebook anew, in place
	OMP_NUM_THREADS=1 $(BIN)/jupyter execute --inplace book/*.ipynb

results: setup ## run the long experiments again and record them (more than a day on one core)
	$(BIN)/python recipes/background.py
	$(BIN)/python recipes/concepts.py
	$(BIN)/python recipes/hard_targets.py
	$(BIN)/python recipes/soft_targets.py
	$(BIN)/python recipes/patience.py
	$(BIN)/python recipes/beyond_logits.py
	$(BIN)/python recipes/good_teachers.py
	$(BIN)/python recipes/frozen_backbone.py
	$(BIN)/python recipes/full_fine_tuning.py
	$(BIN)/python recipes/staying_close.py
	$(BIN)/python recipes/both_together.py
	$(BIN)/python recipes/vision.py
	$(BIN)/python recipes/language.py
	$(BIN)/python recipes/language_rivals.py
	$(BIN)/python recipes/language_labels.py
	$(BIN)/python recipes/retrieval.py
	$(BIN)/python recipes/speech.py
	$(BIN)/python recipes/speech_whisper.py
	$(BIN)/python recipes/sequences.py
	$(BIN)/python recipes/ship_it.py
	$(BIN)/python recipes/few_bits.py
	$(BIN)/python recipes/few_bits_texts.py
	$(BIN)/python recipes/outlook.py
	$(BIN)/python recipes/solar_cells.py
	$(BIN)/python recipes/own_size.py
	$(BIN)/python recipes/where_to_start.py
	$(BIN)/python recipes/does_it_carry.py
	$(BIN)/python recipes/between_tokens.py
	$(BIN)/python figures/intro.py
	$(BIN)/python figures/play.py

figures: setup ## draw the intro's figures again
	$(BIN)/python figures/intro.py

teacher: setup ## train the shipped teacher again (about ten minutes on two cores)
	$(BIN)/python tools/fashion_teacher.py

student: setup ## train the student of the page that runs in a browser again (under a minute)
	$(BIN)/python figures/browser.py

printed: setup ## run the four commands of the page on a reader's own data, and keep what they print (some five minutes)
	$(BIN)/python figures/your_data.py

play: setup ## write what the figures to play with show (`python figures/play.py costs` measures their times)
	$(BIN)/python figures/play.py

bench: setup ## measure what is fast, against what, into benchmarks/results (about ten minutes)
	$(BIN)/python -m pip install -q --no-deps --target $(VENV)/bench torchdistill==1.1.5
	PYTHONPATH=$(VENV)/bench $(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/flat.py

peers: setup ## the same of language models beside TRL and Liger, which are installed for this alone (some forty minutes)
	$(BIN)/python -m pip install -q --no-deps --target $(VENV)/bench trl==1.16.0 liger-kernel==0.8.5
	OMP_NUM_THREADS=1 PYTHONPATH=$(VENV)/bench $(BIN)/python benchmarks/language_peers.py

costs: setup ## measure what each objective and strategy costs, and what the formulas of costs miss, for the pages that say so
	$(BIN)/python benchmarks/costs.py
	$(BIN)/python benchmarks/what_it_costs.py
	$(BIN)/python figures/play.py

course: $(INSTALLED) ## write the course pack for instructors into _build/course
	$(BIN)/python tools/course_pack.py

mutants: setup ## change the code in thousands of places, and count which changes no test notices
	OMP_NUM_THREADS=1 $(BIN)/mutmut run --max-children 2
	$(BIN)/mutmut results

serve: book ## build, then show the site at http://localhost:8000
	$(BIN)/python -m http.server --directory _build/html 8000

clean: ## remove what was built, the virtual environment included
	rm -rf $(VENV) _build build mutants dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, and $(PYTHON) is older; choose another: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	  { [ "$$(id -u)" = 0 ] && echo "Installing Debian's package python3-venv: it makes $(VENV)." && \
	    apt-get update -q && apt-get install -qy python3-venv; } || \
	  { echo "Python's venv is missing; install it (on Debian and Ubuntu: apt install python3-venv) and call make again"; exit 1; }
	@echo "Installing into $(VENV) what pyproject.toml asks for: PyTorch, and what the book and its tests import."
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e '.[$(EXTRAS)]'
	@touch $@
