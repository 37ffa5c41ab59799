# Two commands to know: `make run` and `make test`. Each does all of its own set-up.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# `make run` installs what it needs, and not the development lock.
RUN := .venv-run
RUN_READY := $(RUN)/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Most tests wait more than they compute; the fast ones, and those on a control plane, are busy.
CORES := $(shell nproc 2>/dev/null || echo 2)
AT_ONCE ?= $(shell echo $$(($(CORES) < 5 ? 3 * $(CORES) : 12)))
BUSY_AT_ONCE ?= $(shell echo $$(($(CORES) < 4 ? 2 * $(CORES) : 6)))

.PHONY: help run demo cluster test test-without-node test-node test-fast lint format bench screenshots lock chart docs release-check clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(RUN_READY) ## Start everything on embedded defaults; Ctrl-C stops it
	@$(RUN)/bin/openrouter-guard up

demo: $(READY) ## Show an outage end to end on a Kubernetes control plane of its own
	@python -m tests.demo

cluster: $(READY) ## A throwaway Kubernetes control plane in the foreground
	@python -m tests.controlplane

test: $(READY) ## All tests; those on a Kubernetes control plane after the others, those on a node at the end
	@status=0; \
	$(MAKE) --no-print-directory test-without-node || status=1; \
	$(MAKE) --no-print-directory test-node || status=1; \
	exit $$status

test-without-node: $(READY) ## All tests but those on a node
	@python -m tests.controlplane build >/dev/null || echo "The tests that need it are skipped."
	@status=0; \
	pytest --numprocesses=$(AT_ONCE) --dist=loadfile --no-loadscope-reorder -m "not cluster and not node" || status=1; \
	pytest --numprocesses=$(BUSY_AT_ONCE) --dist=loadfile --no-loadscope-reorder -m cluster || status=1; \
	exit $$status

test-node: $(READY) ## The tests with real pods on a real node, which needs root and containerd
	@pytest -m node

test-fast: $(READY) ## The tests that need no cluster, in under a minute
	@pytest --numprocesses=$(BUSY_AT_ONCE) --quiet -m "not cluster and not node and not slow"

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

COMPILE := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
AS_DEV := --constraint requirements/dev.txt
# The tests run with dev's versions, so all others take theirs from there.
lock: $(READY) ## Resolve the dependencies anew into requirements/
	@$(COMPILE) pyproject.toml --extra all --group dev -o requirements/dev.txt
	@$(COMPILE) pyproject.toml $(AS_DEV) -o requirements/worker.txt
	@for extra in service operator all; do \
		$(COMPILE) pyproject.toml $(AS_DEV) --extra $$extra -o requirements/$$extra.txt || exit; done
	@$(COMPILE) --group bench $(AS_DEV) -o requirements/bench.txt
	@$(COMPILE) --group release $(AS_DEV) -o requirements/release.txt
	@echo hatchling editables | tr " " "\n" | $(COMPILE) - --no-annotate $(AS_DEV) -o requirements/build.txt

chart: $(READY) ## Copy the CRD into the chart, check the chart and pack it into dist/
	@cp crds/openrouterstatuses.yaml charts/openrouter-guard/files/
	@python -m tests.chart.readme
	@helm=$$(python -c 'from tests.controlplane import helm; print(helm())') \
		&& $$helm lint --strict charts/openrouter-guard \
		&& $$helm package charts/openrouter-guard --destination dist

docs: $(READY) $(VENV)/.release ## Build the documentation as a site, into build/site
	@python -m release.site && echo "Open build/site/index.html"

# TAG=v0.1.0 also holds all versions to a tag, as the release workflow does.
release-check: $(READY) $(VENV)/.release ## Build and check all that a release publishes, into dist/
	@python -m release $(if $(TAG),--tag $(TAG))

clean: ## Remove the virtual environment and the caches in the checkout
	@rm -rf $(VENV) $(RUN) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

PIP := -m pip --quiet --disable-pip-version-check install
# $(1) the virtual environment, $(2) its requirements files, $(3) options of pip.
define set_up
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "openrouter-guard needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Say which one: make PYTHON=python3.12"; exit 1; }
@echo "Setting up $(1) (once)…"
@$(PYTHON) -m venv $(1)
@$(1)/bin/python $(PIP) $(3) --require-hashes $(addprefix -r ,$(2))
@$(1)/bin/python $(PIP) --no-deps --no-build-isolation --editable .
@touch $@
endef

$(READY): requirements/dev.txt pyproject.toml
	$(call set_up,$(VENV),requirements/dev.txt)

$(RUN_READY): requirements/all.txt requirements/build.txt pyproject.toml
	$(call set_up,$(RUN),requirements/all.txt requirements/build.txt,--no-compile)

$(VENV)/.bench $(VENV)/.release: $(VENV)/.%: requirements/%.txt $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@
