PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install quickstart study-quick study-labels bench bench-full bench-streaming reference test test-long lint clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "bfpo needs Python 3.11 or newer; try: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

install: $(VENV)/installed ## make the environment (.venv) from the pinned set

quickstart: install ## the whole way on the microworld: SFT, four methods, SafeHelp, report
	$(BIN)/bfpo quickstart --fresh

study-quick: install ## five seeds of it, with every method's beta from one grid (half an hour, resumable)
	$(BIN)/bfpo study quick

study-labels: install ## how few human labels suffice (two hours, resumable)
	$(BIN)/bfpo study labels

bench: install ## the engine against TRL, fp32 and all weights (half an hour, resumable)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[trl]'
	$(BIN)/python benchmarks/engine.py headline

bench-full: install ## every precision and choice of weights, and the sweeps (hours, resumable)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[trl]'
	$(BIN)/python benchmarks/engine.py full

bench-streaming: install ## memory and start of training on 100,000 pairs (ten minutes)
	$(BIN)/python benchmarks/streaming.py

reference: install ## write docs/cli.md and docs/api.md from the commands and docstrings
	$(BIN)/python docs/make_reference.py

test: install ## run the tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-long: install ## run the tests that take many minutes each, which 'make test' leaves out
	$(BIN)/python -m pytest -m long

lint: install ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean: ## remove the environment and what runs wrote
	rm -rf $(VENV) runs
