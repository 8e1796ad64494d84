# Set-up in two commands: `make demo` runs the main job, `make test` the tests.
PYTHON ?= python3.11
# Any torch from the floor in pyproject.toml on will do: make demo TORCH=torch
TORCH ?= torch==2.13.0
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-all lint docs clean

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python pyproject.toml
	$(PIP) "$(TORCH)"
	$(PIP) -e ".[demo]"
	touch $@

.venv/.dev: .venv/.demo
	$(PIP) -e ".[dev]"
	touch $@

# Passive: threads that wait do not take a shared core from those that work.
demo: .venv/.demo
	OMP_WAIT_POLICY=passive .venv/bin/lightlike demo

test: .venv/.dev
	.venv/bin/python -m pytest -m "not slow" -n 2

test-all: .venv/.dev
	.venv/bin/python -m pytest -n 2

lint: .venv/.dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

docs: .venv/.demo
	$(PIP) -e ".[docs]"
	.venv/bin/mkdocs build --strict --quiet
	@echo build/docs/index.html

clean:
	rm -rf .venv
