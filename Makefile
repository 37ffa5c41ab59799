# Two commands to know: `make run` and `make test`. Each does all of its own set-up.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help run demo cluster test test-fast lint format bench screenshots lock chart clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(READY) ## Start everything on embedded defaults; Ctrl-C stops it
	@openrouter-guard up

demo: $(READY) ## Show an outage end to end on a Kubernetes control plane of its own
	@python -m tests.demo

cluster: $(READY) ## A throwaway Kubernetes control plane in the foreground
	@python -m tests.controlplane

test: $(READY) ## All tests; those on a Kubernetes control plane two at a time
	@python -m tests.controlplane build >/dev/null || echo "The tests that need it are skipped."
	@pytest --numprocesses=auto --dist=loadfile -m "not cluster"
	@pytest --numprocesses=2 --dist=loadfile -m cluster

test-fast: $(READY) ## The tests that need no cluster, in under a minute
	@pytest --numprocesses=auto --quiet -m "not cluster and not slow"

lint: $(READY) ## Style, types and the architecture's contracts
	@ruff format --check .
	@ruff check .
	@mypy
	@lint-imports

format: $(READY) ## Rewrite the code in the house style
	@ruff format .
	@ruff check --fix .

bench: $(READY) $(VENV)/.bench ## Measure, side by side with other libraries
	@python -m benchmarks

screenshots: $(READY) ## Picture the status page for the documentation; needs Chromium
	@python -m tests.page.screenshots docs/images

COMPILE := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml
lock: $(READY) ## Resolve the dependencies anew into requirements/
	@$(COMPILE) -o requirements/worker.txt
	@$(COMPILE) --extra service -o requirements/service.txt
	@$(COMPILE) --extra operator -o requirements/operator.txt
	@$(COMPILE) --extra all --group dev -o requirements/dev.txt
	@$(COMPILE:pyproject.toml=) --group bench --constraint requirements/dev.txt -o requirements/bench.txt
	@echo hatchling | $(COMPILE:pyproject.toml=-) --no-annotate --constraint requirements/dev.txt -o requirements/build.txt

chart: $(READY) ## Copy the CRD into the chart, check the chart and pack it into dist/
	@cp crds/openrouterstatuses.yaml charts/openrouter-guard/files/
	@helm=$$(python -c 'from tests.controlplane import helm; print(helm())') \
		&& $$helm lint --strict charts/openrouter-guard \
		&& $$helm package charts/openrouter-guard --destination dist

clean: ## Remove the virtual environment and the caches in the checkout
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "openrouter-guard needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Say which one: make PYTHON=python3.12"; exit 1; }
	@echo "Setting up $(VENV) (once)…"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.bench: requirements/bench.txt $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@
