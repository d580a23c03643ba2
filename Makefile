# `make demo` and `make test` are all that a machine with Python 3.11 or newer needs.
# Each makes the virtual environment .venv first; once that is installed, no network is used.

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
# one thread a test worker: workers that share cores and also start threads slow each other down
SINGLE := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help install demo test tests lint readme readme-check docs wheel bench mutants clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | sort

install: $(STAMP)  ## make .venv and install Hauberk with its development tools

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Hauberk needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev,docs]'
	@touch $@

demo: $(STAMP)  ## train, attack, certify, mix, report and verify four nets on embedded digits
	$(BIN)/hauberk demo --out demo

test: lint readme-check tests  ## everything that must hold before a change lands

tests: $(STAMP)  ## the tests alone, with coverage
	$(SINGLE) $(BIN)/pytest -n $(WORKERS) --dist worksteal --cov --cov-report=term

lint: $(STAMP)  ## style, types and the order of imports
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/mypy --strict examples benchmarks/readme.py reproductions
	$(BIN)/lint-imports

readme: $(STAMP)  ## write the generated tables of README.md and docs/ again
	$(BIN)/python benchmarks/readme.py

readme-check: $(STAMP)  ## fail when a generated table is stale or a number (also one of results/README.md) has no record behind it
	$(BIN)/python benchmarks/readme.py --check

docs: $(STAMP)  ## build the site into docs/_build/html: run every how-to and every page of the lecture
	$(SINGLE) $(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

wheel: $(STAMP)  ## build dist/: the sdist and the wheel
	rm -rf dist
	$(BIN)/python -m hatchling build -t sdist -t wheel

RUNS := runs/small_cifar10
PEER := $(SINGLE) $(BIN)/python benchmarks/autoattack_peer.py

bench: $(STAMP)  ## measure training, Lipschitz layers, attacks and votes against bare passes, AutoAttack against the published one
	$(BIN)/python benchmarks/training_throughput.py
	$(SINGLE) $(BIN)/python benchmarks/attack_overhead.py --output results
	$(BIN)/python benchmarks/lipschitz_speed.py
	$(BIN)/python benchmarks/hycas_cost.py --out results/hycas_cost.json
	$(PEER) model-of-cost plain --threads 1 --images 64 --out results/autoattack/speed_plain.json
	$(PEER) model-of-cost small_cnn --threads 1 --images 64 --out results/autoattack/speed_small_cnn.json
	$(PEER) model-of-cost resnet18 --threads 1 --images 16 --out results/autoattack/speed_resnet18.json
	test ! -d $(RUNS)/standard_cifar10_small-seed0 || $(PEER) speed $(RUNS)/standard_cifar10_small-seed0 \
	  --threads 1 --images 500 --probe 64 --out results/autoattack/speed_standard.json
	test ! -d $(RUNS)/pgd_cifar10_small-seed0 || $(PEER) speed $(RUNS)/pgd_cifar10_small-seed0 \
	  --threads 1 --images 128 --out results/autoattack/speed_pgd.json

mutants: $(STAMP)  ## break the central formulas one by one; every break must be caught by a test
	$(SINGLE) $(BIN)/python tests/mutants/mutants.py

clean:  ## remove caches, coverage data and the demo (not .venv, not runs)
	rm -rf demo dist docs/_build docs/reference docs/lecture .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks reproductions examples -name __pycache__ -type d -prune -exec rm -rf {} +
