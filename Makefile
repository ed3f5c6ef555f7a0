# `make train` and `make test` do all set-up on a fresh machine; ARGS goes to the program, as in `make test ARGS="-k book"`.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install train test integrations matrix lint bench clean

install: $(INSTALLED)

# torch comes first and pinned, so that no other package brings in the large build for GPUs.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[all,dev]"
	touch $@

train: $(INSTALLED)
	$(BIN)/python examples/train_execution.py $(ARGS)

# A file's tests share what they compile and play, so they stay in one process.
test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

# What cannot be in $(VENV), in environments of its own: `make integrations ARGS=rllib`, `make matrix ARGS=1.2.2`.
integrations:
	PYTHON="$(PYTHON)" .ci/environments integrations $(ARGS)

matrix:
	PYTHON="$(PYTHON)" .ci/environments matrix $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(INSTALLED)
	$(BIN)/tradefm-gym bench $(ARGS)

clean:
	rm -rf $(VENV) .venvs .venv-ci build dist runs .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
