PYTHON ?= python3
RUN ?= runs/demo
BIN := .venv/bin

# The constraints hold in pip's isolated build environment too (newer pip reads the second name for it).
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
PIP_INSTALL := $(BIN)/python -m pip install --quiet --progress-bar off -c constraints.txt

# Folders are listed with their files, so that a deleted file triggers a reinstall as well.
SOURCES := $(shell find src native -name __pycache__ -prune -o -print 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: demo test lint bench docs clean help

demo: .venv/.installed  ## solve a self-similar Burgers profile and write its report
	$(BIN)/ntangent solve burgers-profile --k 1 --run-dir $(RUN) --overwrite --threads 1
	@echo "report: $(CURDIR)/$(RUN)/report.html"

test: lint  ## lint, types and all tests
	$(BIN)/python -m pytest -n 2 tests

lint: .venv/.installed  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/.installed  ## time every backend on this machine
	$(BIN)/ntangent bench --quick

docs: .venv/.docs  ## build the documentation into site/, warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml constraints.txt CMakeLists.txt $(SOURCES) | .venv/bin/python
	@echo "installing ntangent into .venv (the first time takes a few minutes)"
	$(PIP_INSTALL) '.[all,test,dev]'
	@touch $@

.venv/.docs: pyproject.toml constraints.txt | .venv/.installed
	$(PIP_INSTALL) '.[docs]'
	@touch $@

clean:  ## remove the environment, build folders and caches (runs/ stays)
	rm -rf .venv build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
