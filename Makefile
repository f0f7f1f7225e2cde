PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install quickstart quickstart-real study-quick study-decisive study-real study-dial study-labels study-redteam pretrain bench bench-full bench-gpu bench-streaming reference docs docs-publish tutorials test test-long test-real fuzz faults lint audit clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "bfpo needs Python 3.11 or newer; try: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

install: $(VENV)/installed ## make the environment (.venv) with the pinned versions

quickstart: install ## run everything once on the microworld: SFT, four methods, SafeHelp, report
	$(BIN)/bfpo quickstart --fresh

quickstart-real: install ## a real chat model: red teaming, BFPO and DPO, answers side by side (93 MB to download; resumable)
	$(BIN)/bfpo model smollm2 runs/smollm2
	$(BIN)/bfpo quickstart --model runs/smollm2 --output runs/quickstart-real

study-quick: install ## five seeds of the quickstart, every method's beta from one grid (half an hour, resumable)
	$(BIN)/python -m studies quick

study-decisive: install ## BFPO and its rivals in worlds where labels err (a day of one core, resumable)
	$(BIN)/python -m studies decisive

study-real: install ## BFPO and its rivals on a real chat model (for a GPU, resumable; DATA=FOLDER of pairs, not distributed)
	$(BIN)/bfpo model smollm2 runs/smollm2
	sed -e 's/licence:/license:/' -e 's#{file: #{file: $(abspath $(DATA))/suite_dev/#' $(DATA)/suite_dev/suite.yaml > runs/suite_dev.yaml
	$(BIN)/python -m studies real --model runs/smollm2 --data $(DATA)/mix_dev --suite runs/suite_dev.yaml

study-dial: install ## the dial against trained models, and bounds on fresh prompts (hours, resumable)
	$(BIN)/python -m studies dial

study-labels: install ## how few labels must come from people (about four hours, resumable)
	$(BIN)/python -m studies labels

study-redteam: install ## red teaming in two rounds without human labels (half an hour, resumable)
	$(BIN)/python -m studies redteam

pretrain: install ## make the microworld's model again, in runs/microworld (six minutes)
	$(BIN)/python -m studies pretrain --output runs/microworld

bench: install ## the engine against TRL, fp32 and all weights (half an hour, resumable)
	$(BIN)/python benchmarks/engine.py headline

bench-full: install ## the same with every precision and choice of weights, and sweeps (hours, resumable)
	$(BIN)/python benchmarks/engine.py full

bench-gpu: install ## what needs a GPU: parity tests, training against TRL, a profile (nine minutes; GPU="--only tests")
	$(BIN)/python benchmarks/gpu.py $(GPU)

bench-streaming: install ## memory and start of training on 100,000 pairs (six minutes)
	$(BIN)/python benchmarks/streaming.py

reference: install ## write docs/cli.md, docs/api.md, docs/recipe.md and the tutorials' pages from the code
	$(BIN)/python docs/make_reference.py

docs: install ## build the documentation site in build/site; a broken internal link fails
	$(BIN)/zensical build --clean --strict

docs-publish: install ## build the site of this version beside those of others (FOLDER=...), with a selector of versions
	$(BIN)/python docs/publish.py $(FOLDER)

tutorials: install ## run the tutorials (a few minutes each)
	rm -rf runs/tutorial
	for script in docs/tutorials/*.py; do $(BIN)/python $$script || exit 1; done

test: install ## run the tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-long: install ## run what 'make test' leaves out: long tests, and those with a real model (a quarter of an hour)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "long or real_model"

test-real: install ## run the tests with a real model, SmolLM2-135M (93 MB to download; six minutes)
	$(BIN)/python -m pytest -m real_model

fuzz: install ## damage 100,000 inputs of every kind and expect the documented errors (an hour; FUZZ="--seed 1")
	$(BIN)/python tests/fuzzing/fuzz.py $(FUZZ)

faults: install ## kill, stop and damage every long command at 20 random moments each; nothing may be lost (half an hour)
	$(BIN)/python tests/disturbing/disturb.py $(FAULTS)

lint: install ## check style, formatting and types (ruff and pyright)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

audit: install ## look up known vulnerabilities of the pinned versions (needs the network, and an index that knows them)
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

clean: ## remove the environment and everything that runs wrote
	rm -rf $(VENV) runs
