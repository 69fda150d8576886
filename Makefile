PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONSTRAINTS := --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help install lint test test-slow coverage demo study clean

help:
	@echo "make install   create $(VENV) with the pinned set (constraints.txt), for development"
	@echo "make lint      style, format, types, import directions"
	@echo "make test      lint, then the tests"
	@echo "make test-slow the tests that take long: soak, killed processes, Ray, whole trainings"
	@echo "make coverage  the tests, and which lines they reach (a quarter slower)"
	@echo "make demo      the whole project on the demo corpus, offline: train, distil, report"
	@echo "make study     a workflow of research/project.yml: make study RUN=twitter2017 DATA=FOLDER"
	@echo "make clean     remove caches and build output; $(VENV) and training runs stay"

# On Linux PyPI's torch is the GPU build, several gigabytes. For PyTorch's CPU build:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make install
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

install: $(VENV)/.installed-dev
$(VENV)/.installed-dev: setup.cfg pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --editable '.[demo,dev]' $(CONSTRAINTS)
	touch $@ $(VENV)/.installed-demo

# What the demo needs, without the developers' tools.
$(VENV)/.installed-demo: setup.cfg pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --editable '.[demo]' $(CONSTRAINTS)
	touch $@

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Processes with one thread each: beside other work, threads that wait for each other take several
# times as long.
test test-slow coverage: export OMP_NUM_THREADS := 1
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --durations 25
test: lint
	$(PYTEST) -m "not slow"

test-slow: install
	$(PYTEST) -m slow

coverage: install
	$(PYTEST) --cov --cov-report=term:skip-covered

# project.yml calls `python` and `spacy-mmcot`, so the environment's come first.
demo study: export PATH := $(abspath $(BIN)):$(PATH)
demo: $(VENV)/.installed-demo
	python -m spacy project run all

# weasel runs a project in its own folder; `python -m research` is found by PYTHONPATH.
study: export PYTHONPATH := $(CURDIR)
study: $(VENV)/.installed-demo
	python -m spacy project run $(RUN) research --vars.data $(abspath $(DATA))

clean:
	rm -rf build dist *.egg-info .coverage .coverage.*
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find spacy_mmcot benchmarks research tests -name __pycache__ -type d -prune -exec rm -rf {} +
