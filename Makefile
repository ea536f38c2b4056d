# Everything a fresh Debian 12, Debian 13 or Ubuntu 24.04 needs is installed here, as root, from the machine's own
# package sources. `make demo` and `make test` need nothing but a clone.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-all test-matrix bench lint docs evidence clean help

help:
	@echo "make demo        a real OOM kill in a small cgroup of its own, explained   (2 minutes from nothing)"
	@echo "make test        lint, types and the tests, on the built wheel             (10 minutes from nothing, 4 again)"
	@echo "make test-all    the slow rest: kernels, systemd guest, browser            (60 minutes)"
	@echo "make test-matrix all kernels, all scenarios, an hour of fuzzing            (by hand)"
	@echo "make bench lint docs evidence"

# -- set-up ------------------------------------------------------------------------------------------------------------
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
APT := $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120
PACKAGES := .build/packages
TEST_PACKAGES := .build/test-packages

.build:
	@mkdir -p .build

$(PACKAGES): | .build
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { $(APT) update && $(APT) install -y --no-install-recommends python3 python3-venv >/dev/null; }
	@touch $@

$(TEST_PACKAGES): $(PACKAGES)
	@$(APT) update && $(APT) install -y --no-install-recommends git xz-utils zstd bzip2 grep >/dev/null
	@touch $@

WHEEL := .build/wheel
SOURCES := $(shell find src -type f -not -name '*.pyc') pyproject.toml README.md

$(BIN)/python: | $(PACKAGES)
	@$(PYTHON) -m venv $(VENV)

$(WHEEL): $(BIN)/python $(SOURCES) | .build
	@rm -rf .build/dist
	@$(BIN)/pip -q wheel --no-deps -w .build/dist .
	@$(BIN)/pip -q install --upgrade --force-reinstall --no-deps .build/dist/*.whl
	@$(BIN)/pip -q install "$$(echo .build/dist/*.whl)"
	@$(BIN)/python -m compileall -q $(VENV)/lib || true
	@touch $@

.build/dev: $(WHEEL) pyproject.toml
	@$(BIN)/pip -q install "$$(echo .build/dist/*.whl)[dev]"
	@touch $@

# -- jobs --------------------------------------------------------------------------------------------------------------
demo: $(WHEEL)
	@$(BIN)/reprieve demo

lint: .build/dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

test: $(TEST_PACKAGES) .build/dev
	@echo "make test: lint, types and tests; budget 10 minutes from nothing, 4 minutes again"
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest -q -m "not slow and not matrix"

test-all: $(TEST_PACKAGES) .build/dev
	@echo "make test-all: every kernel, the systemd guest, the browser; budget 60 minutes"
	@$(BIN)/python -m pytest -q -m "slow"

test-matrix: $(TEST_PACKAGES) .build/dev
	@echo "make test-matrix: all kernels and scenarios, an hour of fuzzing; by hand"
	@$(BIN)/python -m pytest -q -m "matrix"

bench: .build/dev
	@echo "make bench: side by side with what people use today; budget 40 minutes"
	@$(BIN)/python -m bench

evidence: .build/dev
	@$(BIN)/python -m tests.rules.evidence

docs: .build/dev
	@$(BIN)/python docs/pages.py

clean:
	rm -rf .build $(VENV)
