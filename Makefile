# A fresh Linux machine with Python 3.11+ and pip is all that is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# uv installs the lock in seconds and shares files between environments; it is itself installed by pip.
UV := $(BIN)/uv
# Where the environment forbids bytecode files, each of the hundreds of processes that the tests start would
# compile PyTorch and MLflow anew: ten seconds of CPU time each.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo study-demo test test-slow test-stack soak check lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/installed  ## .venv with everything, pinned and checked

$(VENV)/installed: requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps -e .
	touch $@

demo: install  ## train on handwritten digits, tracked in MLflow: two minutes
	PATH="$(CURDIR)/$(BIN):$$PATH" mlflow run . --env-manager local --experiment-name imagenette \
		-P data=digits -P epochs=6
	@echo "Compare runs with:"; echo "$(BIN)/imagenette ui"

study-demo: install  ## a tiny grid over weight decay by two workers: four minutes
	PATH="$(CURDIR)/$(BIN):$$PATH" mlflow run . --env-manager local --experiment-name imagenette \
		-e study -P name=weight-decay -P workers=2 -P smoke=true
	@echo "Look at it with  $(BIN)/optuna-dashboard sqlite:///optuna.db  and"; echo "$(BIN)/imagenette ui"

# Three on two cores: a quarter of a worker's time it waits for a server or for time to pass.
test: install  ## the tests: 8 to 12 minutes on two quiet cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test-slow: install  ## proofs that take minutes each: tours, lost hosts, kills, races, false claims, fuzzing, upgrades
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow --timeout 1800

test-stack: install  ## the containers, on a Docker engine: twenty minutes with building the images
	docker/check

soak: install  ## half an hour of everything on one server whose parts are killed: MINUTES=30 SEED=1
	$(BIN)/python benchmarks/soak.py --minutes $(or $(MINUTES),30) --seed $(or $(SEED),1) --json soak.json

check: install  ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: install  ## pin everything anew, with hashes and without addresses
	$(UV) pip compile pyproject.toml --extra train --extra report --extra serve -o requirements.lock --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --quiet
	$(UV) pip compile pyproject.toml --extra dev --extra all -c requirements.lock -o requirements-dev.lock --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet
	# boto3 wants an older python-dateutil than the rest; everything else as above
	grep -oE '^[a-z0-9._-]+==[^ \\]+( ;[^\\]*)?' requirements.lock | grep -v '^python-dateutil==' >$(VENV)/constraints.txt
	rm -f docker/tracking.lock
	$(UV) pip compile docker/tracking.in pyproject.toml --extra report --extra dashboard -c $(VENV)/constraints.txt -o docker/tracking.lock --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --quiet

clean:  ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
