# `make run` serves the ledger on this machine, `make test` tests it; each sets up what it needs, from PyPI and npm.

PYTHON ?= python3
PORT ?= 8000
DATA ?= .local/data
UV := .venv/bin/uv

.PHONY: run test lint format clean

run: .venv/ready
	@exec .venv/bin/python -m infra.run --port $(PORT) --data $(DATA)

test: .venv/ready
	.venv/bin/python -m pytest

lint: .venv/ready
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/cfn-lint template.yaml
	$(UV) lock --check --quiet

format: .venv/ready
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

clean:
	rm -rf .venv .local .mypy_cache .pytest_cache .ruff_cache .coverage

.venv/ready: pyproject.toml uv.lock
	@echo "Setting up .venv from uv.lock"
	@test -x $(UV) || { $(PYTHON) -m venv .venv && .venv/bin/pip install --quiet --disable-pip-version-check uv; }
	@$(UV) sync --frozen --quiet
	@touch $@
