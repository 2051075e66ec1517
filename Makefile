# Everything runs in .venv, made on first use.  `make demo` runs the main job, `make check` is the one door of CI.

PYTHON ?= python3
BIN := .venv/bin
# Ray would otherwise ask a service for updates and report usage; closed networks have neither.
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: demo bench docs check check-all format

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 15) else "Python 3.11 to 3.14 is needed, $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	@echo "Setting up .venv (about 5.5 GB with PyTorch; some minutes) ..."
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(BIN)/python -m ensurepip > /dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet '.[dev]'
	@rm -rf build *.egg-info
	@touch $@

demo: .venv/installed
	$(BIN)/python -m tune_jobs search digits-demo

# On a machine with nothing else to do.  Others: make bench BENCH="--limit 12000 --epochs 2", "--idle 16,100,1000", ...
bench: .venv/installed
	$(BIN)/python -m profiling bench $(BENCH)

# What is made from the code: the schema of an experiment file, and the page on it.
docs: .venv/installed
	$(BIN)/python -m tune_jobs schema --output tune_jobs/docs/experiment.schema.json
	$(BIN)/python -m tune_jobs schema --format md --output tune_jobs/docs/experiment.md

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not cluster and not slow and not gpu"
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "cluster and not slow and not gpu"

check-all: check
	$(BIN)/python -m pytest -m "slow or gpu"

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
