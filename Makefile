# Everything a person or CI runs. Needs Python >= 3.11 and make; everything else is put
# into .venv, at the versions and hashes of requirements.lock.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEEDS ?= 2000
# Where `make demo` and `make bench` keep logs and snapshots while they run.
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.PHONY: help smoke setup demo test lint format unit simulate simulate-coverage mutants cluster long java-go bench lock clean

help: ## what can be run
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install everything into .venv; seconds when nothing changed
	@PYTHON="$(PYTHON)" VENV="$(VENV)" bash tools/setup.sh

demo: setup ## 336,776 real flights, two kill -9, every row checked
	@$(BIN)/python -m examples.flights.demo

test: setup lint ## lint, types, architecture contracts and the whole test suite
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not cluster and not simulation and not mutants and not long"
	@$(BIN)/python -m pytest -q -m simulation
	@$(BIN)/python -m pytest -q -m "cluster and not long"

lint: setup ## ruff, mypy --strict, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy .
	@$(BIN)/lint-imports

format: setup ## let ruff rewrite what it can
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

unit: setup ## the fast tests only
	@$(BIN)/python -m pytest -m "not slow and not cluster and not simulation and not mutants"

simulate: setup ## the seeded simulator on its own: make simulate SEEDS=10000
	@$(BIN)/statefun-ray simulate --seeds $(SEEDS)

simulate-coverage: setup ## branches of the core that the simulator alone reaches
	@$(BIN)/python -m tests.simulation.branches --seeds 300

mutants: setup ## one-line bugs in the core, and the seed that finds each
	@$(BIN)/python -m tests.simulation.mutants

smoke: setup ## 100,000 commands through each interpreter, workers and services killed at random
	@$(BIN)/python -m tests.smoke

cluster: setup ## the tests that start a real Ray cluster
	@$(BIN)/python -m pytest -m cluster

long: setup ## on Ray, too long for every run: the Kubernetes example's runtime, the smoke suite embedded
	@$(BIN)/python -m pytest -q -m long

java-go: setup ## Apache's Java and Go SDKs too: make java-go STATEFUN_SOURCE=a checkout of their sources
	@test -d "$(STATEFUN_SOURCE)/statefun-sdk-java" -a -d "$(STATEFUN_SOURCE)/statefun-sdk-go" || { \
		echo "STATEFUN_SOURCE='$(STATEFUN_SOURCE)' is no checkout of apache/flink-statefun (3.3.0):" \
			"it needs statefun-sdk-java and statefun-sdk-go; see docs/conformance.md" >&2; exit 2; }
	@$(BIN)/python -m pytest -q tests/parts/test_services.py tests/conformance tests/smoke
	@$(BIN)/python -m tests.smoke --interpreter java --interpreter go

bench: setup ## ratios against ceilings measured in the same run
	@$(BIN)/python -m benchmarks

lock: setup ## renew requirements.lock from pyproject.toml
	@$(BIN)/uv pip compile pyproject.toml --quiet --all-extras --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--no-annotate --output-file requirements.lock

clean: ## remove .venv and every cache
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .demo .bench
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
