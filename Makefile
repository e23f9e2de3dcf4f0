# make serve       set up, serve on HOST:PORT (127.0.0.1:8000), and train the default models once beside the server
# make test-fast   set up and run the tests that need neither a server (nor PostgreSQL's) nor a trained model, in minutes
# make test        set up, train the default models once, and run all tests; ARGS="tests/server/test_http.py" runs some
# make test-slow   the tests that take minutes or gigabytes and seldom break; CI leaves them out
# make quality     train on public sets, ask over HTTP, write docs/quality.md (80 minutes); ARGS=--quick takes one seed
# make behaviour   test the trained sentiment model by behaviour, fail below a bound (a minute); ARGS="--failures" lists more
# make lint        check format, style, types and the order of imports
# make format      format, and fix what the linter can fix
# make bench       measure this machine's limit, Flywheel and its peers (50 minutes); ARGS="--help" lists options
# make load        a day of each kind of user against a server, by Locust, with thresholds; ARGS="--help" lists options
# make faults      kill, freeze and fill what a server stands on, under load (half an hour); ARGS="--list" lists the faults
# make clean       remove the environment and caches; var/ with the trained models stays

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
HOST   ?=
PORT   ?=
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# If it were set, as in many containers, each training would compile torch and transformers again, half of their import time.
export PYTHONDONTWRITEBYTECODE =

# Either the GPU build or the CPU build of onnxruntime: both contain the same module.
RUNTIME := $(shell command -v nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
# Compiling the bytecode of every package takes a third of the installation's time. Only what a first start imports is
# compiled, by importing it, once: the dozen processes of a server would each compile it.
FIRST := models.training.first_version, sklearn.linear_model, sklearn.decomposition, scipy.optimize
SERVED := ray.serve, serve.cli.first_start, serve.rayserve.server, serve.rayserve.deployments, serve.rayserve.jobs, serve.api.gateway, serve.api.control, serve.controller.loop
INSTALL := $(BIN)/pip install --quiet --no-compile --progress-bar off -c constraints.txt

# Tests that also run with ray.tuning: stock. The slow ones are those of lifecycle and overload.
STOCK_TESTS := tests/server/test_http.py tests/server/test_tuning.py
SLOW_STOCK_TESTS := tests/server/test_lifecycle.py tests/server/test_overload.py

.PHONY: serve test test-fast test-slow quality behaviour lint format bench load faults clean

serve: $(VENV)/.serve
	$(if $(HOST),HOST=$(HOST)) $(if $(PORT),PORT=$(PORT)) exec $(BIN)/flywheel up

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(ARGS)
ifeq ($(ARGS),)
	$(BIN)/python -m pytest --tuning stock $(STOCK_TESTS)
endif

test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest tests/unit -k "not postgresql" $(ARGS)

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow $(ARGS)
ifeq ($(ARGS),)
	$(BIN)/python -m pytest --tuning stock $(SLOW_STOCK_TESTS)
endif

quality: $(VENV)/.serve
	$(BIN)/python loadtests/quality/report.py $(ARGS)

behaviour: $(VENV)/.serve
	$(BIN)/python loadtests/quality/behaviour.py --check $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
ifeq ($(filter test,$(MAKECMDGOALS)),)  # `make lint test` imports every test file anyway
	$(BIN)/python -m pytest --collect-only -qq >/dev/null
endif

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.serve
	$(BIN)/python loadtests/bench.py $(ARGS)

load: $(VENV)/.load
	$(BIN)/python loadtests/locust/run.py $(ARGS)

faults: $(VENV)/.dev
	$(BIN)/python -m loadtests.faults $(ARGS)

clean:
	rm -rf $(VENV) .venv-kserve build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Flywheel needs Python 3.11 or newer; name one with PYTHON=python3.12 make serve"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing Flywheel and its dependencies, about 2 GB, once (2 to 4 minutes)"
	@$(BIN)/python deploy/progress.py $(INSTALL) -e '.[$(RUNTIME),train]'
	@echo "compiling what the server imports"
	-@$(BIN)/python -c 'import $(FIRST)' & $(BIN)/python -c 'import $(SERVED)'; wait
	@touch $@

$(VENV)/.dev: $(VENV)/.serve
	@echo "installing the development tools"
	@$(INSTALL) -e '.[$(RUNTIME),train,dev]'
	@touch $@

$(VENV)/.load: $(VENV)/.serve
	@echo "installing Locust"
	@$(INSTALL) -e '.[$(RUNTIME),train,load]'
	@touch $@
