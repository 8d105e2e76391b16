# Every target sets up what it needs; `make help` lists them.
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

export RAY_USAGE_STATS_ENABLED := 0

.PHONY: help demo test run check format clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 10

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

var/checkpoints/%: $(INSTALLED)
	$(BIN)/dreamserve checkpoint $@ --seed $$(printf %s '$*' | cksum | cut -d' ' -f1)

MODELS := var/checkpoints/tiny-inpaint var/checkpoints/tiny-inpaint-2

demo: $(INSTALLED) $(MODELS)  ## start the service, send the documented inpaint request, show the result, stop
	$(BIN)/dreamserve demo

test: $(INSTALLED)  ## all tests that need neither a GPU nor minutes
	$(BIN)/python -m pytest -m 'not chaos and not gpu'

run: $(INSTALLED) $(MODELS)  ## serve on http://HOST:PORT until Ctrl-C
	$(BIN)/dreamserve run --config configs/dev.yaml --host $(HOST) --port $(PORT)

check: $(INSTALLED)  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/meta

format: $(INSTALLED)  ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove what the targets made, the environment too
	rm -rf $(VENV) out var build dist *.egg-info
