# Two commands on a fresh machine: `make demo` and `make test`. Everything is set up in .venv by plain pip.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test test-gpu lint check format docs clean

demo: $(STAMP)-core
	$(BIN)/orch demo

test: $(STAMP)-dev
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test-gpu: $(STAMP)-dev
	$(BIN)/pytest -m gpu

lint: $(STAMP)-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test

format: $(STAMP)-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP)-dev
	$(BIN)/python docs/make_cli.py > docs/cli.md
	$(BIN)/python docs/make_tree.py

$(STAMP)-core: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(STAMP)-dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@ $(STAMP)-core

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis demo
