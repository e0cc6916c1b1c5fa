# make search   build .venv, run the bit-allocation search on the embedded model
# make test     build .venv, run all checks and tests
# make ui       browse what was logged
# make clean    remove .venv

PYTHON ?= python3
BIN := .venv/bin

.PHONY: search test ui clean lint
.DEFAULT_GOAL := search

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"mmq needs Python 3.11 or newer, this is {v.major}.{v.minor}; use make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

search: .venv/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" mlflow run . -e search --env-manager local --experiment-name mmq

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest --numprocesses 2

ui: .venv/installed
	$(BIN)/mlflow ui

clean:
	rm -rf .venv
