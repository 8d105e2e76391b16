# Every target sets up what it needs; `make help` lists them.
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
SOAK_S ?= 600
MUTANTS ?= 25
MUTANTS_S ?= 3600
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# What `make test-fast` runs, without tests marked as slow; none of it imports torch or Ray.
FAST := tests/unit/api tests/unit/config tests/unit/database tests/unit/images tests/unit/jobs tests/unit/models tests/unit/net tests/unit/service tests/unit/storage tests/unit/telemetry tests/unit/webhooks

export RAY_USAGE_STATS_ENABLED := 0
# Else each process of the tests compiles them anew, a quarter of its start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test-fast test test-plain test-ray test-slow test-long test-ops test-browser mutants run chaos soak bench train train-trial check format hooks clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 13

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps open_clip_torch
	@touch $@

demo: $(INSTALLED)  ## start the service, send the documented inpaint request, show the result, stop
	$(BIN)/dreamserve demo

test-fast: $(INSTALLED)  ## the inner loop: unit tests that need no models and no Ray, under 90 s on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(FAST) --numprocesses=auto --maxprocesses=4 --dist=loadfile -m 'not slow and not long'

test: $(INSTALLED)  ## the tests of every part, but for what is slow: 8 minutes on two cores
	$(MAKE) --no-print-directory test-plain test-ray

test-plain: $(INSTALLED)  ## those without a Ray cluster
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 \
		--dist=loadfile --no-loadscope-reorder --ignore=tests/meta \
		-m 'not ray and not chaos and not gpu and not ops and not browser and not slow and not long'

test-ray: $(INSTALLED)  ## those on a real Ray cluster
	$(BIN)/python -m pytest tests/serve -p no:cacheprovider \
		-m 'ray and not chaos and not gpu and not ops and not slow and not long'

test-slow: $(INSTALLED)  ## what takes seconds to minutes each: CI runs it after `make test`
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 \
		--dist=loadfile --ignore=tests/meta \
		-m 'slow and not long and not ray and not chaos and not gpu and not ops and not browser'
	$(BIN)/python -m pytest tests/serve -p no:cacheprovider -m 'slow and not long and ray'

test-long: $(INSTALLED)  ## all of what the others take in part, and a short storm
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 \
		--dist=worksteal -m 'long and not ray and not browser and not chaos'
	$(BIN)/python -m pytest tests/serve tests/chaos -p no:cacheprovider -m 'long and ray'

test-ops: $(INSTALLED)  ## HAProxy, Ray's token, deploys: the service with each, on a Ray of its own
	$(BIN)/python -m pytest tests/ops -m ops

run: $(INSTALLED)  ## serve on http://HOST:PORT until Ctrl-C
	$(BIN)/dreamserve run --config configs/dev.yaml --host $(HOST) --port $(PORT)

test-browser: $(INSTALLED)  ## the playground in a real Chromium, with the demo models; skips where there is none
	$(BIN)/python -m pytest tests/browser -m browser -p no:cacheprovider -rs

mutants: $(INSTALLED)  ## small faults that tests should notice: MUTANTS per room, MUTANTS_S seconds in all
	$(BIN)/python -m tests.mutants --each $(MUTANTS) --seconds $(MUTANTS_S)

chaos: $(INSTALLED)  ## kill things for minutes while jobs run; figures go to out/
	$(BIN)/python -m pytest tests/chaos -m chaos

soak: $(INSTALLED)  ## ordinary calls beside hostile ones for SOAK_S seconds, 600 by default
	$(BIN)/python -m benchmarks.soak --seconds $(SOAK_S)

bench: $(INSTALLED)  ## the benchmarks of minutes; benchmarks/README.md lists all and what they measure
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.row_growth
	$(BIN)/python -m benchmarks.inpaint_crop
	$(BIN)/python -m benchmarks.latency
	$(BIN)/python -m benchmarks.isolation
	$(BIN)/python -m benchmarks.addons
	$(BIN)/python -m benchmarks.lora_rows
	$(BIN)/python -m benchmarks.lora_latency
	$(BIN)/python -m benchmarks.controlnet
	$(BIN)/python -m benchmarks.scan

train: $(INSTALLED)  ## train all demo checkpoints again: hours on a CPU, minutes on a GPU
	$(BIN)/python -m training.all

train-trial: $(INSTALLED)  ## every part of the training for a few steps: shows that the chain runs
	$(BIN)/python -m training.all --trial --work build/trial --out build/trial/checkpoints

check: $(INSTALLED)  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/meta

format: $(INSTALLED)  ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

hooks: $(INSTALLED)  ## have git run format, lint and tests/meta before each commit
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pre-commit>=4'
	$(BIN)/pre-commit install

clean:  ## remove what the targets made, the environment too
	rm -rf $(VENV) out var build dist *.egg-info
