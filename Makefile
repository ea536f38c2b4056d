# Everything a fresh Debian 12, Debian 13 or Ubuntu 24.04 needs is installed here, as root, from the machine's own
# package sources. `make demo` and `make test` need nothing but a clone.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-all test-matrix bench lint docs evidence kubernetes clean help

help:
	@echo "make demo        a real OOM kill in a small cgroup of its own, explained   (2 minutes from nothing)"
	@echo "make test        lint, types and the tests, on the built wheel             (10 minutes from nothing, 4 again)"
	@echo "make test-all    the slow rest: kernels, systemd guest, browser            (60 minutes)"
	@echo "make test-matrix all kernels, all scenarios, an hour of fuzzing            (by hand)"
	@echo "make bench lint docs evidence"

# -- set-up ------------------------------------------------------------------------------------------------------------
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
APT := $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120
INSTALL := $(APT) install -y --no-install-recommends

# journalctl and what fills a journal; a bus; what makes and opens packed logs; a user without rights; what kills a
# process at the call we name
TEST_PACKAGES := systemd dbus-daemon systemd-journal-remote util-linux groff gzip xz-utils zstd bzip2 grep strace
# shells that complete; the browser; a systemd of our own, in a container; runtimes and servers that live on with what
# they are told, and what looks into them; container engines, and what runs in one; a Windows, as far as Wine is one
# (100 MB, a minute)
SLOW_PACKAGES := zsh fish systemd-container chromium fonts-dejavu-core default-jdk-headless nodejs postgresql redis-server \
	golang-go heaptrack gcc iproute2 btrfs-progs docker.io docker-compose podman busybox-static sosreport wine wine64

.build/python:
	@mkdir -p .build
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ $(APT) update && $(INSTALL) python3 python3-venv >/dev/null; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# Installed as users do, from the wheel, byte-compiled.
.build/wheel: .build/python $(shell find src -type f -not -name '*.pyc') pyproject.toml README.md
	@rm -rf .build/dist && $(BIN)/pip -q wheel --no-deps -w .build/dist .
	@$(BIN)/pip -q install .build/dist/*.whl
	@$(BIN)/pip -q install --force-reinstall --no-deps .build/dist/*.whl
	@touch $@

.build/dev: .build/wheel
	@$(BIN)/pip -q install "$$(echo .build/dist/*.whl)[dev]"
	@touch $@

.build/test-packages: .build/python
	@$(APT) update && $(INSTALL) $(TEST_PACKAGES) >/dev/null
	@touch $@

.build/slow-packages: .build/test-packages
	@$(INSTALL) $(SLOW_PACKAGES) >/dev/null
	@touch $@

# What `top` is measured beside, apart from what we depend on.
.build/glances/bin/glances: .build/python
	@$(PYTHON) -m venv .build/glances && .build/glances/bin/pip -q install glances

# The saved guest. Where it cannot be had, its tests are skipped, unless CI=true.
.build/guest: .build/dev
	@$(BIN)/python -m lab setup || [ "$$CI" != true ]
	@touch $@

.build/guests: .build/dev
	@$(BIN)/python -m lab setup --all || [ "$$CI" != true ]
	@touch $@

# -- jobs --------------------------------------------------------------------------------------------------------------
demo: .build/wheel
	@$(BIN)/reprieve demo

lint: .build/dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/mypy --platform win32 --follow-imports=silent src/reprieve/machine/job.py src/reprieve/run_windows.py

test: .build/test-packages .build/dev .build/guest
	@echo "make test: lint, types and tests; budget 10 minutes from nothing, 4 minutes again"
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow and not matrix"

test-all: .build/slow-packages .build/dev .build/guests .build/nohang/nohang.deb
	@echo "make test-all: three kernels, the systemd guest, the browser; budget 60 minutes"
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "slow and not alone"
	@$(BIN)/python -m pytest -q -m "slow and alone"

test-matrix: .build/slow-packages .build/dev .build/guests
	@echo "make test-matrix: all kernels and scenarios, an hour of fuzzing; by hand"
	@$(BIN)/python -m pytest -q -m matrix

# Beside which the search for the largest process is measured: unpacked, not installed, as that would start it.
.build/earlyoom/usr/bin/earlyoom: .build/test-packages
	@mkdir -p .build/earlyoom && cd .build/earlyoom && apt-get -qq download earlyoom && dpkg-deb -x earlyoom_*.deb .

# What kills in a guest, where it is installed.
.build/nohang/nohang.deb: .build/test-packages
	@mkdir -p .build/nohang && cd .build/nohang && apt-get -qq download nohang && mv nohang_*.deb nohang.deb

bench: .build/test-packages .build/dev .build/glances/bin/glances .build/earlyoom/usr/bin/earlyoom
	@$(INSTALL) procps smem >/dev/null
	@echo "make bench: side by side with what people use today; budget 40 minutes"
	@$(BIN)/python -m bench

# The API server and the kubelet that test-matrix talks to: once, an hour.
kubernetes: .build/dev
	@$(BIN)/python -c 'from lab.kubernetes import build; build()'

evidence: .build/dev
	@$(BIN)/python -m tests.rules.evidence

docs: .build/dev
	@$(BIN)/python docs/pages.py
	@$(BIN)/python docs/man.py

clean:
	rm -rf .build $(VENV)
