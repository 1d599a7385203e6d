# make demo   the real pipeline on this machine, on real images
# make test   every test
# Both install what they need into .venv first.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
PHOTOS ?=
PYTEST_ARGS ?=

.PHONY: help demo test test-fast test-runtime lint format types bench docs clean

help:
	@sed -n 's/^# make/make/p' Makefile

# make lint   ruff, formatting, types, and the command reference
lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/generate.py --check

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(VENV)/.run
	$(BIN)/imgpipe local demo $(PHOTOS)

test: $(VENV)/.dev
	$(BIN)/pytest $(PYTEST_ARGS)
	@$(MAKE) --no-print-directory test-runtime

# The functions run on python3.13 on AWS: where one is found, what tests them runs on it too.
RUNTIME ?= $(shell for p in python3.13 $$HOME/.pyenv/versions/3.13.*/bin/python3.13; do \
	$$p -c 'import venv, ensurepip' 2>/dev/null && command -v $$p && break; done)
RUNTIME_TESTS = $(shell grep -L pipeline_cli tests/test_*.py | \
	xargs grep -lE '^(from|import) (image_processor|db_writer|pipeline_contract)')

test-runtime:
ifeq ($(RUNTIME),)
	@echo "python3.13 was not found: the functions were tested on $$($(BIN)/python --version) alone."
else
	@$(MAKE) --no-print-directory $(VENV)/runtime/.ready
	$(VENV)/runtime/bin/pytest -q -m "not slow and not emulator and not terraform" $(RUNTIME_TESTS)
endif

$(VENV)/runtime/.ready: pyproject.toml constraints.txt
	$(RUNTIME) -m venv $(VENV)/runtime
	$(VENV)/runtime/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . isal pytest hypothesis moto
	@touch $@

# make test-fast   the tests that take seconds
test-fast: $(VENV)/.dev
	$(BIN)/pytest -m "not slow and not emulator and not terraform" $(PYTEST_ARGS)

# make docs   the command reference, from --help
docs: $(VENV)/.dev
	$(BIN)/python docs/generate.py

# make bench  the benchmarks, against their peers
bench: $(VENV)/.dev
	@for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "imgpipe needs Python 3.11 or newer: install it (Debian: apt install python3 python3-venv) or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) lacks the venv module: install it (Debian: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamp files say what is installed; they are older than pyproject.toml when that has changed.
$(VENV)/.run: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[local]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --group dev
	@touch $@
