# make search   build .venv, run the bit-allocation search on the embedded model
# make test     build .venv, run all checks and tests
# make test-5   build .venv-5, run the tests that touch transformers with transformers 5
# make identity record the hashes of what computes, once its results are known to be the same
# make docs     generate docs/cli.md from the commands
# make ui       browse what was logged
# make clean    remove .venv and .venv-5

PYTHON ?= python3
BIN := .venv/bin

.PHONY: search test test-5 identity docs ui clean lint
.DEFAULT_GOAL := search

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"mmq needs Python 3.11 or newer, this is {v.major}.{v.minor}; use make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# the packages that ours is held against; where they cannot be had, those tests are skipped
.venv/compared: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,all]' \
		|| echo 'auto-gptq, autoawq or shap cannot be installed here: what compares with them is skipped'
	touch $@

search: .venv/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" mlflow run . -e search --env-manager local --experiment-name mmq

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint .venv/compared
	$(BIN)/python -m pytest --numprocesses 2

# what no transformers version can change stays out: the UI, documents, fresh processes, benchmarks,
# solvers on bare matrices, tables of results, searches
UNMOVED := $(addprefix tests/,search test_readme.py test_mlproject.py test_benchmarks.py test_project.py \
	$(addprefix plugins/test_,gptq.py auto_gptq.py awq.py odd_layers.py annotations.py caption_text.py \
		line_process.py meteor.py) \
	mmq/test_answers.py mmq/test_importance.py mmq/test_comparison.py mmq/test_analyze.py \
	mmq/test_import_results.py mmq/test_tradeoffs.py mmq/test_designs.py \
	mmq/test_quantize_process.py mmq/tracking/test_contact.py mmq/system/test_disk.py \
	mmq/system/test_home.py mmq/data/test_images.py mmq/data/test_json_stream.py \
	mmq/tracking/test_launched.py mmq/tracking/test_moved.py mmq/system/test_process.py mmq/test_plots.py \
	mmq/system/test_regular_file.py mmq/system/test_sealed.py mmq/system/test_secrets.py \
	mmq/test_store_command.py mmq/system/test_strict_json.py mmq/test_study_names.py)

test-5: .venv-5/installed
	.venv-5/bin/python -m pytest --numprocesses 2 -m "not browser" $(addprefix --ignore ,$(UNMOVED))

.venv-5/installed: pyproject.toml constraints-transformers-5.txt
	$(PYTHON) -m venv .venv-5
	.venv-5/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-transformers-5.txt --editable '.[dev]'
	touch $@

identity: .venv/installed
	$(BIN)/python tests/identity.py --record

docs: .venv/installed
	$(BIN)/python tests/help_pages.py --write

ui: .venv/installed
	$(BIN)/mlflow ui

clean:
	rm -rf .venv .venv-5
