# make demo: everything, from an empty machine to a scored model. make test: the tests. `make help` lists the rest.
VENV := .venv
# The first that runs: a version manager's shim may exist without its Python.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do $$p -c '' 2>/dev/null && command -v $$p && break; done)
BIN := $(VENV)/bin/python
export SHAREVERSE_HOME ?= $(CURDIR)/var

.PHONY: help setup demo play up down status test test-slow test-hostile lint docs bench

help:            ## this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

setup: $(VENV)/.ready  ## the environment in .venv (demo and test do this by themselves)

$(VENV)/.ready: pyproject.toml constraints.txt infra/setup_venv.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh infra/setup_venv.sh

demo: $(VENV)/.ready  ## services, record, train, evaluate, print the outcome
	@$(BIN) -m flows.cli demo

play: $(VENV)/.ready  ## drive two cars in a generated world, in a browser (the run opened last)
	@$(BIN) -m flows.cli play

up: $(VENV)/.ready  ## start Prefect, MLflow and a worker
	@$(BIN) -m flows.cli up

down:            ## end exactly what was started
	@test ! -x $(BIN) || $(BIN) -m flows.cli down

status:          ## one line a service
	@test -x $(BIN) || { echo "Nothing is set up yet: run make demo." >&2; exit 1; }
	@$(BIN) -m flows.cli status

test: $(VENV)/.ready  ## the tests (about 15 minutes on 2 idle cores)
	@$(BIN) -m pytest

test-slow: $(VENV)/.ready  ## the long ones: kills, resumption, the whole line
	@$(BIN) -m pytest -m slow

test-hostile: $(VENV)/.ready  ## damaged files and hostile messages, with counts by outcome
	@$(BIN) -m pytest -m slow tests/hostile -s

lint: $(VENV)/.ready  ## ruff (check and format) and mypy
	@$(BIN) -m ruff check .
	@$(BIN) -m ruff format --check .
	@$(BIN) -m mypy

docs:            ## the documentation site, in site/ (an environment of its own, .venv-docs)
	@test -x .venv-docs/bin/mkdocs || { "$(PYTHON)" -m venv .venv-docs && .venv-docs/bin/python -c 'import tomllib; \
		print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' \
		| .venv-docs/bin/python -m pip install -q -r /dev/stdin; }
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet && echo "site/index.html"

bench: $(VENV)/.ready  ## ratios against physical limits and peers
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN) "$$script" || exit 1; done
