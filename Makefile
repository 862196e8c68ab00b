# One line per thing that can be done: `make` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup servers demo test test-long test-pythons check format bench docs deploy clean

help: ## Say what can be done
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## Make .venv with all that is needed (does nothing when nothing changed)

$(STAMP): pyproject.toml constraints.txt
	@echo "Setting up $(VENV) with all that demo and tests need: a minute or two, once"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dashboard,metering,postgres]' --group dev
	@touch $(STAMP)

servers: ## Install the real servers that the tests run: Prometheus, OpenTelemetry Collector
	@tools/install-real-servers.sh

demo: setup ## Simulated organization, exporter and dashboard; needs no key. STATE=postgres keeps its state in a PostgreSQL
ifeq ($(STATE),postgres)
	@tools/demo-postgres.sh
else
	$(BIN)/otel-openai-usage demo
endif

test: setup servers check ## Everything that must hold before a push, real servers included
	$(BIN)/pytest --cov --cov-report=term

test-long: setup servers ## The tests that take minutes
	$(BIN)/pytest -m long --timeout 1800

test-pythons: ## The tests on Python 3.12 and 3.13, and on 3.11 with the lowest dependencies
	@tools/test-pythons.sh $(TESTS)

check: setup ## Lint, types, floors: what needs no running
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	@said=$$($(BIN)/lint-imports --no-cache) || { echo "$$said"; exit 1; }; tail -n 4 <<< "$$said"

format: setup ## Format, sort imports and repair what ruff can repair by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup servers ## Measure polls, scrapes, exports, memory, events and the dashboard; BENCH=--quick for less
	@$(BIN)/python -m tools.bench $(BENCH)
	@$(BIN)/python -m tools.bench.ingest $(filter --quick --dry,$(BENCH))
	@$(BIN)/python -m tools.bench.dashboard $(filter --quick --dry,$(BENCH))

docs: setup ## Write the generated documentation anew
	@$(BIN)/python tools/docs.py

deploy: setup ## Write anew what deploy/ has from the code: dashboards, copies for Kubernetes and Helm
	@$(BIN)/python -m tools.dashboards.write
	@$(BIN)/python -m tools.kubernetes

clean: ## Remove what can be made again (keeps .venv)
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
