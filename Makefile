# Everything a user or developer types. Needs Python 3.11, make and the package registries.
PYTHON ?= python3.11
SEED ?= 0
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
DEMO := build/demo
export TF_USE_LEGACY_KERAS := 1
export TF_CPP_MIN_LOG_LEVEL := 2

.PHONY: demo test test-fast conformance conformance-models fuzz kills lint lock wheel clean help

help:  ## Show the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(READY): requirements.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "requirements.lock is for Python 3.11; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock
	@touch $(READY)

demo: $(READY)  ## Simulate logs, run the pipeline, push, serve, rank one request.
	@$(BIN)/python tfx_pipeline.py demo --workdir $(DEMO)/seed-$(SEED) --seed $(SEED)

# Two processes, a file in one piece: TensorFlow imports and fixtures are shared within files.
test: $(READY)  ## All tests.
	$(BIN)/python -m pytest -p no:cacheprovider -n 2 --dist loadfile

test-fast: $(READY)  ## The tests for daily use.
	$(BIN)/python -m pytest -p no:cacheprovider -m "not slow" -n 2 --dist loadfile tests/unit

# A TF Serving (or another server of its API) at TARGET=host:port has to serve what
# `make conformance-models MODELS=folder` wrote, from its models.config. REST=host:port adds the REST
# API, MODELS=folder the cases that push; SERVER_MODELS is the folder where the server sees it.
conformance: export POLYRANK_TARGET = $(TARGET)
conformance: export POLYRANK_REST_TARGET = $(REST)
conformance: export POLYRANK_MODELS = $(MODELS)
conformance: export POLYRANK_SERVER_MODELS = $(SERVER_MODELS)
conformance: $(READY)  ## Serving contract: the embedded server, or TARGET=host:port.
	$(BIN)/python -m pytest -p no:cacheprovider tests/conformance_serving

conformance-models: $(READY)  ## Write the models of the conformance suite into MODELS=folder.
	$(BIN)/python tests/conformance_serving/line_models.py $(MODELS) $(SERVER_MODELS)

fuzz: $(READY)  ## 100,000 faulty requests to the embedded server.
	POLYRANK_FUZZ_INPUTS=100000 $(BIN)/python -m pytest -p no:cacheprovider tests/serving/test_fuzzing.py

kills: $(READY)  ## kill -9 of push, pipeline and server at 20 random moments each.
	POLYRANK_KILLS=20 $(BIN)/python -m pytest -p no:cacheprovider -s -k "kills" \
		tests/serving/test_kills.py tests/pipeline/test_run.py

lint: $(READY)  ## ruff, mypy, import-linter.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The wheels of two packages need glibc 2.38 in their newest release (Debian 12 and Ubuntu 22.04
# have less): they are resolved apart, in older versions, and everything is installed --no-deps.
lock: $(READY)  ## Resolve pyproject.toml into requirements.lock (names, versions, hashes).
	$(BIN)/python requirements/lock.py

# A left-over build folder would put deleted files into the wheel.
wheel: $(READY)  ## Build the project's wheel for Beam's workers into dist/.
	rm -rf build/lib build/bdist.* polyrank.egg-info dist/polyrank-*.whl
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/polyrank-*.whl

clean:  ## Remove what runs and tests made; keeps the environment.
	rm -rf build dist polyrank.egg-info .mypy_cache .ruff_cache
