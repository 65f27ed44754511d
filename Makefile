# Everything sets itself up in .venv; a second run starts at once.

PYTHON ?= python3
ENGINE ?= pocketsphinx
AUDIO ?=
VENV ?= .venv$(addprefix -,$(notdir $(filter-out python3,$(PYTHON))))

BIN := $(VENV)/bin/python
INSTALL = $(BIN) -m pip --disable-pip-version-check --quiet install --constraint deploy/constraints.txt --editable
DEMO_EXTRA := $(if $(filter faster-whisper,$(ENGINE)),whisper,local)

.DEFAULT_GOAL := help
.PHONY: help demo test lint format chaos bench clean
.SUFFIXES:

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18
	@echo "  PYTHON=python3.12, ENGINE=faster-whisper and AUDIO=my.wav choose what they say"

demo: $(VENV)/.$(DEMO_EXTRA)  ## play a telephone call through the bridge, on this machine, without accounts
	@$(BIN) -m bridge demo --engine $(ENGINE) $(AUDIO)

test: lint  ## everything that must hold before a commit
	@$(BIN) -m pytest -q -n auto --dist loadfile

lint: $(VENV)/.dev  ## style and types only
	@$(BIN) -m ruff check
	@$(BIN) -m ruff format --check --quiet
	@$(BIN) -m mypy

format: $(VENV)/.dev  ## put the code into the house's form
	@$(BIN) -m ruff check --fix
	@$(BIN) -m ruff format

chaos: $(VENV)/.dev  ## the fault suites at their full sizes; prints one line each
	@$(BIN) -m tests.chaos

bench: $(VENV)/.dev  ## what a call costs and how many one processor carries, beside two simpler bridges; less than ten minutes
	@$(BIN) -m tests.benchmarks

clean:  ## remove what the other targets made
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

# One stamp for each set of extras: older than pyproject.toml means to install again.
$(VENV)/.local: $(VENV)/.made pyproject.toml deploy/constraints.txt bridge/__init__.py
	@echo "Installing whisper-bridge into $(VENV) ..."
	@$(INSTALL) '.[local]'
	@touch $@

$(VENV)/.whisper: $(VENV)/.made pyproject.toml deploy/constraints.txt bridge/__init__.py
	@echo "Installing whisper-bridge with faster-whisper into $(VENV) ..."
	@$(INSTALL) '.[local,whisper]'
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml deploy/constraints.txt bridge/__init__.py
	@echo "Installing whisper-bridge and its tests' tools into $(VENV) ..."
	@$(INSTALL) '.[local,whisper,microphone,dev]'
	@touch $@ $(VENV)/.local $(VENV)/.whisper

$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "$(PYTHON) is not here: install Python 3.11 or newer (Debian: apt install python3 python3-venv)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is too old: whisper-bridge needs Python 3.11 or newer; name one as in make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make virtual environments: install its venv module (Debian: apt install python3-venv)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@
