# The one door. `make` alone lists the targets; each does its own set-up on a machine with python3, make and git.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --warn-undefined-variables

VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Where it is set each of the hundreds of processes compiles all it imports again, and pytest rewrites every assertion.
unexport PYTHONDONTWRITEBYTECODE

# The tests that need a command skip loudly without it. command:package
TOOLS := ip:iproute2 node:nodejs curl:curl nginx:nginx haproxy:haproxy containerd:containerd runc:runc
NICE_TOOLS := wrk:wrk slowhttptest:slowhttptest prometheus:prometheus
PYTEST := $(BIN)/python -m pytest
# Four on two cores: most of the tests that take long wait, and those of one group run one after the other.
WORKERS := -n 4 --dist loadgroup
# Those that are fast compute: one for each core.
FAST_WORKERS := -n auto --dist loadgroup

.PHONY: help demo demo-serve demo-node test test-fast test-long test-v2-vm lint bench fuzz coverage-doc clean tools vm-tools

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.run ## watch a web app fall asleep and wake up
	@$(BIN)/python examples/demo.py

demo-serve: $(VENV)/.run ## the same, and keep serving until interrupted
	@$(BIN)/python examples/demo.py --serve

demo-node: tools $(VENV)/.test ## two pods in real containers under a node freezer (root)
	@PATH=$$PATH:/usr/sbin:/sbin $(BIN)/python examples/demo_node.py

test: lint tools ## everything except the long tests
	@$(PYTEST) $(WORKERS) -m "not long"

test-fast: $(VENV)/.test ## under a minute; no root, no extra packages
	@$(PYTEST) $(FAST_WORKERS) -m "not slow and not root and not long"

test-long: tools vm-tools $(VENV)/.test ## the tests that take longer than a minute each
	@$(PYTEST) -m long --timeout 1800 || [ $$? = 5 ]  # 5: there are none

test-v2-vm: vm-tools $(VENV)/.test ## the cgroup driver where v2 has the cpu controller: Debian's kernel in qemu
	@$(BIN)/python -m tests.vm

lint: $(VENV)/.test ## style, types, who may import whom
	@$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(VENV)/.test ## figures of this machine
	@$(BIN)/queueproxy bench

SECONDS ?= 60
fuzz: $(VENV)/.test ## fuzz each codec target for SECONDS (60)
	@$(BIN)/python -m pip install -q --config-settings editable_mode=compat -e '.[test,fuzz]'
	mkdir -p .fuzz/{request,response,chunked}
	for target in request response chunked; do
	  $(BIN)/python -m tests.fuzz $$target -max_total_time=$(SECONDS) -max_len=400 -artifact_prefix=.fuzz/$$target- \
	    .fuzz/$$target tests/fuzz/corpus/$$target
	done

coverage-doc: $(VENV)/.run ## rewrite docs/contract-coverage.md from the marks on the tests
	@$(BIN)/python -m tests.contract_coverage

clean: ## remove everything that make made, the environment included
	@rm -rf $(VENV) .vm build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- set-up: stamps live in the environment and die with it

$(VENV)/.run: pyproject.toml | $(BIN)/python
	@echo "installing queueproxy into $(VENV)"
	$(BIN)/python -m pip install -q --config-settings editable_mode=compat -e .
	touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	@echo "installing queueproxy and its test tools into $(VENV)"
	$(BIN)/python -m pip install -q --config-settings editable_mode=compat -e '.[test,lint]'
	touch $@ $(VENV)/.run

$(BIN)/python:
	@new=""
	for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then new=$$candidate; break; fi
	done
	if [ -z "$$new" ]; then
	  echo "queueproxy needs Python 3.11 or newer; found: $$(python3 --version 2>&1 || true)" >&2
	  exit 1
	fi
	rm -rf $(VENV)
	# Debian ships venv without the part that installs pip.
	if ! $$new -c 'import ensurepip, venv' 2>/dev/null; then
	  package=$$($$new -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	    echo "installing $$package"
	    apt-get -q update >/dev/null
	    DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends $$package >/dev/null
	  else
	    echo "$$new cannot make virtual environments. As root: apt-get install $$package" >&2
	    exit 1
	  fi
	fi
	$$new -m venv $(VENV)

tools: $(VENV)/.tools

$(VENV)/.tools: Makefile | $(BIN)/python
	@PATH=$$PATH:/usr/sbin  # where Debian keeps servers, and not everybody's PATH
	missing() { for tool in $$*; do command -v "$${tool%%:*}" >/dev/null || echo "$${tool##*:}"; done; }
	need=$$(missing $(TOOLS)); nice=$$(missing $(NICE_TOOLS))
	if [ -n "$$need$$nice" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	  echo "installing" $$need $$nice
	  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1  # installed for the tests, not to be started as services
	  apt-get -q update >/dev/null || true
	  [ -z "$$need" ] || apt-get -qy install --no-install-recommends $$need >/dev/null || true
	  for package in $$nice; do apt-get -qy install --no-install-recommends $$package >/dev/null || true; done
	  need=$$(missing $(TOOLS)); nice=$$(missing $(NICE_TOOLS))
	  touch $@  # once is enough, even where a package is not to be had
	fi
	if [ -n "$$need$$nice" ]; then
	  echo "not installed:" $$need $$nice
	  echo "tests that need them are skipped; as root: apt-get install" $$need $$nice
	else
	  touch $@
	fi

# qemu is large: only for the target that needs it. Its kernel is fetched, not installed, by tests/vm.
vm-tools:
	@if ! command -v qemu-system-x86_64 >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	  echo "installing qemu-system-x86"
	  apt-get -q update >/dev/null || true
	  DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends qemu-system-x86 >/dev/null || true
	fi
