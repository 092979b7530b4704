# make quickstart   train, evaluate and look at a small panoptic model, from nothing
# make test         everything that this machine can test in minutes
# make test-lowest  that, with the lowest version of every requirement (Python 3.10)
# make test-newest  that, with the newest ones that pip finds
# make test-all     that, every model of the zoo at its real size, and what CI checks about style, types and spelling
# make test-clients what packages of others, and with CLIENTS_ROOT=folder projects in checkouts, do on top of this one
# make lint         what CI checks about style, types and spelling
# make types        the part of it that takes longest
# make dist         a release in dist/: sdist and wheels, built in isolation and tried without a compiler
#
# Variables:  PYTHON=python3.12         the Python that makes the environment
#             TORCH='torch==2.12.0'     another torch than the tested one; any pip requirement
#             JOBS=4                    test processes

PYTHON ?= python3
VENV ?= .venv
# Versions of what is installed; empty: the newest.
CONSTRAINTS ?= constraints.txt
TORCH ?= $(or $(shell grep -hs '^torch==' $(CONSTRAINTS) /dev/null),torch)
JOBS ?= auto

BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
# One stamp per choice of torch: a second run costs nothing, another choice installs again.
STAMP := $(VENV)/.installed-$(shell echo '$(TORCH)' | cksum | cut -d' ' -f1)
# --no-cache-dir and the like, if you need them.
PIP_FLAGS ?=
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) -c $(VENV)/constraints.txt
CLANG_SOURCES := $(shell find detectron2 -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.h')

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-lowest test-newest test-all test-gpu test-clients clients lint types format dist clean

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

install: $(STAMP)

# Torch comes first: the operators are compiled against the one in the environment, where there is a compiler.
$(STAMP): pyproject.toml setup.py $(CONSTRAINTS) $(CLANG_SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed, this is %s; choose one with make PYTHON=..." % sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	sed '/^torch==/d' $(or $(CONSTRAINTS),/dev/null) > $(VENV)/constraints.txt
	$(PIP_INSTALL) '$(TORCH)' setuptools wheel
	$(PIP_INSTALL) '$(TORCH)' --no-build-isolation -e '.[dev]'
	rm -f $(VENV)/.installed-*
	touch $@
	@$(BIN)/python -c 'from detectron2.layers import extension as e; print("Compiled operators:", e.missing_reason() or "built")'

quickstart: $(STAMP)
	$(BIN)/python tools/quickstart.py

test: $(STAMP)
	$(BIN)/python -m pytest -q -n $(JOBS) --maxprocesses 8 --dist worksteal

test-lowest:
	$(MAKE) test VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt

test-newest:
	$(MAKE) test VENV=.venv-newest CONSTRAINTS=

# What works on top of this package, as its package index has it. The last two ask for versions of years ago, and
# are taken without what they ask for.
CLIENTS := deepdoctection layoutparser neptune opencv-python-headless sahi simplejson supervision torchvision transformers
OLD_CLIENTS := neptune-detectron2 slowfast
# One package index, whatever else pip is told to look in.
ONE_INDEX := PIP_CONFIG_FILE=$(if $(filter Windows_NT,$(OS)),nul,/dev/null) PIP_FIND_LINKS= PIP_EXTRA_INDEX_URL=

test-clients:
	$(MAKE) clients VENV=.venv-clients CONSTRAINTS=constraints-clients.txt

clients: $(VENV)/.clients
	DETECTRON2_TEST_CLIENTS=1 $(BIN)/python -m pytest -q -W default tests/clients/packages
	$(if $(CLIENTS_ROOT),$(BIN)/python tools/run_clients.py '$(CLIENTS_ROOT)')

# torch and torchvision import together when they come from one place. OpenCV comes twice, with windows and without:
# the one without, which needs no screen, has to be the last.
$(VENV)/.clients: $(STAMP)
	$(PIP_INSTALL) '$(TORCH)' $(CLIENTS)
	$(PIP_INSTALL) --no-deps $(OLD_CLIENTS)
	$(PIP_INSTALL) --no-deps --force-reinstall opencv-python-headless
	$(BIN)/python -c 'import torchvision' || { $(BIN)/python -m pip uninstall -y torch torchvision && \
	  $(ONE_INDEX) $(PIP_INSTALL) '$(TORCH)' torchvision; }
	touch $@

test-gpu: $(STAMP)
	$(BIN)/python -m pytest -q -m gpu

test-all: lint
	$(BIN)/python -m pytest -q --full -n $(JOBS) --maxprocesses 8 --dist worksteal

lint: types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(if $(CLANG_SOURCES),$(BIN)/clang-format --dry-run -Werror $(CLANG_SOURCES))

types: $(STAMP)
	$(BIN)/mypy

dist: $(STAMP)
	$(BIN)/python tools/make_dist.py --torch '$(TORCH)'

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(if $(CLANG_SOURCES),$(BIN)/clang-format -i $(CLANG_SOURCES))

# The environment and what quickstart made stay; `rm -rf .venv output` for those.
clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	rm -rf projects/*/build projects/*/*.egg-info
	find detectron2 projects tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
