# make table: the environment, then the whole workflow on the embedded default
# make test:  the environment, then the tests that take minutes at most in all
# make test-all: the slow ones too
# make test-slurm: a cut-down default through profiles/slurm, where sbatch and its plugin are
# make lint:  formatting, lints and types

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
# As many jobs at a time as there are GPUs, each on its own; where there is none, jobs do not wait.
GPUS := $(words $(wildcard /dev/nvidia[0-9] /dev/nvidia[0-9][0-9]))
GPU := --resources gpu=$(or $(filter-out 0,$(GPUS)),99)

.PHONY: table test test-all test-slurm lint schema

# As many jobs side by side as there are cores, each on one: more do not help a model as small as the
# default's.
table: $(READY)
	$(BIN)/snakemake --cores all --max-threads 1 $(GPU) results/table.csv results/report.html

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-all: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m ""

test-slurm: $(READY)
	$(BIN)/python -m pytest -m slow tests/workflow/test_slurm.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint

# After a change to the options: the schema that editors complete and check configurations with.
schema: $(READY)
	$(BIN)/python -m citepipe.config > workflow/schemas/config.schema.json

$(READY): requirements.lock pyproject.toml
	@case "$(CURDIR)" in *[[:space:]]*) \
	  echo "$(CURDIR): Snakemake needs an environment in a folder without spaces"; exit 1;; esac
	@test -n "$(PYTHON)" || { echo "Python 3.11 is needed; name it with PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	touch $@
