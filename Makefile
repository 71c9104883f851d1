# The few commands of this repository; each sets up what it needs. `make` alone lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help setup demo test lint format clean lab lab-test lab-down

help:
	@echo "make demo     fine-tune the shipped model on an embedded fleet: the quickest look"
	@echo "make test     run the whole test suite"
	@echo "make lint     ruff and mypy"
	@echo "make format   let ruff lay out the code"
	@echo "make setup    only make $(VENV) and install everything into it"
	@echo "make lab      boot a fleet of systemd machines to play with (root); lab-down ends it"
	@echo "make lab-test run only the tests on such machines"
	@echo "make clean    remove $(VENV), .lab and caches; jobs in runs/ stay"

setup: $(INSTALLED)

demo: setup
	$(BIN)/llamaforge demo

# The installed image takes minutes the first time, more than a single test may.
test: setup
	$(BIN)/python -m lab build --if-possible
	$(BIN)/python -m pytest

lab: setup
	$(BIN)/python -m lab up

lab-test: setup
	$(BIN)/python -m lab build
	$(BIN)/python -m pytest tests/lab

lab-down:
	$(BIN)/python -m lab down

# Without its cache: that does not notice when a module of ours moves, which changes how imports of
# it are sorted.
lint: setup
	$(BIN)/ruff check --no-cache
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --no-cache --fix
	$(BIN)/ruff format

clean:
	rm -rf .lab $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

# Made again only when what is installed changes. torch comes first and by its exact version, so
# that no other package's range decides which build of it is taken.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "LlamaForge needs Python 3.10 or newer as $(PYTHON); choose one: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "$(PYTHON) can't make virtual environments; run: sudo apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing torch and the other libraries into $(VENV): a minute or more, without a word"
	$(BIN)/pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@
