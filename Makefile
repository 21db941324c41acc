# `make run` serves the ledger on this machine, `make test` tests it; each sets up what it needs, from PyPI and npm.

PYTHON ?= python3
PORT ?= 8000
DATA ?= .local/data
AUTH ?= $(or $(LEDGER_AUTH),none)
ISSUER_PORT ?= 8010
OWNER ?=
SCOPE ?=
# On the command line only, as in `make run LOG=json`: what an environment has by these names is meant for others.
ENDPOINT =
LOG = short
ONE_CPU =

UV := .venv/bin/uv
# What needs neither Java nor a server of its own; of that, what is marked as slow is left out.
UNIT_TESTS := tests/test_house.py tests/unit
# Tools that cannot share an environment with the ledger have their own, from the same lock. Lambda runs Python 3.13,
# and so do they; a shim of pyenv has to be told.
TOOL := PYENV_VERSION=3.13 UV_PROJECT_ENVIRONMENT
SAM := .local/sam/bin/sam
# No metrics of ours to its makers, and no look for a newer version.
export SAM_CLI_TELEMETRY := 0

.PHONY: run token run-stack build check test cold e2e simulate prove bench bench-rewards mutants openapi lint style types format clean help

run: .venv/ready ## serve the Example App at 127.0.0.1:8000 (PORT, DATA, AUTH, ENDPOINT, LOG, ONE_CPU)
	@exec .venv/bin/python -m infra.run --port $(PORT) --data $(DATA) --auth $(AUTH) --issuer-port $(ISSUER_PORT) \
		--log $(LOG) $(if $(ENDPOINT),--endpoint "$(ENDPOINT)") $(if $(ONE_CPU),--one-cpu)

token: .venv/ready ## print a token of the issuer of `make run AUTH=jwt` (OWNER, SCOPE)
	@.venv/bin/python -m infra.issuer --owner "$(OWNER)" --scope "$(SCOPE)" --port $(ISSUER_PORT)

run-stack: .venv/ready .local/ministack/ready build ## deploy the whole stack into an emulator of AWS, and leave it running
	@exec .venv/bin/python -m infra.stack --port $(PORT) --issuer-port $(ISSUER_PORT)

build: .venv/ready .local/sam/ready ## build the artifact, from uv.lock, for both architectures
	$(SAM) build --build-in-source

# What `sam build` calls: the artifact of a function, which runs on both architectures.
build-%: .venv/ready .local/runtime/ready
	.venv/bin/python -m infra.build "$(ARTIFACTS_DIR)"

check: style types .venv/ready ## check style and types, and run the unit tests, in a minute
	.venv/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal --no-cov -q -m "not slow" $(UNIT_TESTS)

test: .venv/ready .local/runtime/ready .local/ministack/ready .local/npm/ready build ## run all tests, with the coverage that must be reached
	.venv/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

cold: .venv/ready .local/runtime/ready .local/ministack/ready build ## run the built artifact in Lambda's own runtime
	.venv/bin/python -m pytest tests/lambda_runtime --no-cov -s

e2e: .venv/ready .local/ministack/ready build ## test the deployed stack over HTTP (LEDGER_API_URL, LEDGER_TOKEN_COMMAND)
	.venv/bin/python -m pytest tests/e2e/test_stack.py $(if $(LEDGER_API_URL),,tests/e2e/test_two_stacks.py) --no-cov

simulate: .venv/ready ## simulate histories with faults (SEED, SEEDS, STEPS, OPERATIONS, BROKEN)
	@.venv/bin/python -m tests.simulator $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) \
		$(if $(STEPS),--steps $(STEPS)) $(if $(OPERATIONS),--operations $(OPERATIONS)) $(if $(BROKEN),--broken "$(BROKEN)")

prove: .venv/ready .local/runtime/ready build mutants ## run the proofs at length, for hours, and write a report
	.venv/bin/python -m tests.prove

bench: .venv/ready .local/peers/ready .local/runtime/ready build ## print a table of costs (ONLY="cpu cold" prints a part)
	@.local/peers/bin/python -m tests.benchmarks $(ONLY)

bench-rewards: .venv/ready ## compare a sweep with a loop over the processor
	.venv/bin/python -m tests.benchmarks.rewards

mutants: .local/prove/ready ## change the code in small ways; fail if no test notices (ONLY=file)
	@.local/prove/bin/python -m tests.mutants $(ONLY)

style: .venv/ready ## check style with ruff
	.venv/bin/ruff check
	.venv/bin/ruff format --check

types: .venv/ready ## check types with mypy
	.venv/bin/mypy

lint: style types .venv/ready .local/sam/ready ## check style, types, the template and the lock file
	.venv/bin/cfn-lint template.yaml
	$(SAM) validate --lint
	$(UV) lock --check --quiet

openapi: .venv/ready ## write functions/example_app/openapi.json anew
	.venv/bin/python -m infra.openapi

format: .venv/ready ## format the code
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# What makes a client in TypeScript; where there is no npm, its test is skipped.
.local/npm/ready: tests/clients/package.json tests/clients/package-lock.json
	@mkdir -p $(@D) && cp $^ $(@D)
	@if command -v npm >/dev/null; then echo "Setting up $(@D) from package-lock.json" >&2 && \
		npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund --loglevel=error >&2 && touch $@; fi

clean: ## remove everything that was set up
	rm -rf .venv .local .aws-sam .mypy_cache .pytest_cache .ruff_cache .coverage

.venv/ready: pyproject.toml uv.lock
	@echo "Setting up .venv from uv.lock" >&2
	@test -x $(UV) || { $(PYTHON) -m venv .venv && .venv/bin/pip install --quiet --disable-pip-version-check uv; }
	@$(UV) sync --frozen --quiet
	@touch $@

# Mutation testing runs the tests, with all that they need, on a copy of the project; so do the benchmarks, beside others'.
.local/prove/ready .local/peers/ready: SELECTED := --no-install-project --group
.local/%/ready: pyproject.toml uv.lock | .venv/ready
	@echo "Setting up $(@D) from uv.lock" >&2
	@$(TOOL)=$(@D) $(UV) sync --frozen --quiet --python 3.13 $(or $(SELECTED),--only-group) $*
	@touch $@
