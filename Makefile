# Everything works from a clean clone with Python >= 3.11, make and a package registry; the environment is .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RECORDER_DEMO_DIR ?= demo-data
KILLS ?= 500
OUTAGE_S ?= 30
LONG_OUTAGE_S ?= 600
TEST_ARGS ?=
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install demo test torture mutations lint types check format bench clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## make .venv with everything in it

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version); set PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)  ## record a simulated trading session into an embedded ClickHouse and ask it questions
	@$(BIN)/recorder --data-dir $(RECORDER_DEMO_DIR) demo

test: $(STAMP)  ## run the whole test suite
	@$(BIN)/python -m pytest $(TEST_ARGS)

torture: $(STAMP)  ## kill and cut off the server: KILLS=500 times, for OUTAGE_S=30 s and LONG_OUTAGE_S=600 s
	@RECORDER_TEST_KILLS=$(KILLS) RECORDER_TEST_OUTAGE_S=$(OUTAGE_S) \
	  RECORDER_TEST_LONG_OUTAGE_S=$(LONG_OUTAGE_S) $(BIN)/python -m pytest -s -m torture $(TEST_ARGS)

mutations: $(STAMP)  ## take out of the code what its safety hangs on, piece by piece, and see that tests fail: ARGS="--only seal"
	@cd tests && ../$(BIN)/python -m mutations $(ARGS)

lint: $(STAMP)  ## ruff: lint and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP)  ## strict type checking
	@$(BIN)/mypy

check: test lint types  ## all that must pass

format: $(STAMP)  ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(STAMP)  ## the three benchmarks, about four minutes
	@$(BIN)/recorder bench load
	@$(BIN)/recorder bench ingest
	@$(BIN)/recorder bench hotpath

clean:  ## remove the environment, caches and the demo's database
	@rm -rf $(VENV) $(RECORDER_DEMO_DIR) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info build dist
