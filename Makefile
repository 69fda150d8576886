PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install lint test coverage demo clean

help:
	@echo "make install  create $(VENV) with the pinned set (constraints.txt)"
	@echo "make lint     style, format, types, import directions"
	@echo "make test     lint, then the tests"
	@echo "make coverage the tests, and which lines they reach (a quarter slower)"
	@echo "make demo     the whole project on the demo corpus, offline: train, distil, report"
	@echo "make clean    remove caches and build output; $(VENV) and training runs stay"

install: $(INSTALLED)

# On Linux PyPI's torch is the GPU build, several gigabytes. For PyTorch's CPU build:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make install
$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --editable '.[demo,dev]' --constraint constraints.txt
	touch $@

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# A process a core, each with one thread; the tests of a file stay together and share its models.
test coverage: export OMP_NUM_THREADS := 1
test coverage: PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist loadfile --durations 25
test: lint
	$(PYTEST)

coverage: install
	$(PYTEST) --cov --cov-report=term:skip-covered

# project.yml calls `python` and `spacy-mmcot`, so the environment's come first.
demo: export PATH := $(abspath $(BIN)):$(PATH)
demo: install
	python -m spacy project run all

clean:
	rm -rf build dist *.egg-info .coverage .coverage.*
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find spacy_mmcot tests -name __pycache__ -type d -prune -exec rm -rf {} +
