# All targets use the virtual environment .venv in this clone; `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY) ## create .venv with the package and test dependencies; CONSTRAINTS=constraints.txt: versions of the published results

$(READY): setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
	  || { echo "error: $(PYTHON) must be Python 3.10 to 3.12; choose one with make PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]' $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))
	touch $(READY)

run: $(READY) ## train both stages on the embedded scenes, evaluate, report (about 6 minutes on 2 cores)
	$(BIN)/python -m ragaf_exp.run $(ARGS)

test: $(READY) ## run the tests of the fast tier; ARGS='-m slow': only those that take an hour
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

test-long: $(READY) ## run the tests that start processes, interrupt runs or take seconds each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m "process or long" $(ARGS)

slurm-test: $(READY) ## install a one-node SLURM and run a fault matrix on it: needs root on Debian
	tests/slurm/install.sh
	RAGAF_SLURM=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/slurm --timeout=1200 $(ARGS)

eval: $(READY) ## evaluate a run again: make eval RUN=runs/latest
	$(BIN)/python -m eval run=$(or $(RUN),runs/latest) $(ARGS)

studio: $(READY) ## open the studio in the browser, with the packaged network or make studio RUN=runs/latest
	$(BIN)/python -m ragaf_exp.studio run=$(or $(RUN),demo) $(ARGS)

bench: $(READY) ## measure the speeds in the README
	$(BIN)/python -m ragaf_exp.bench $(ARGS)

lint: $(READY) ## check the code: ruff, words, types, layers of imports
	$(BIN)/ruff check .
	$(BIN)/python .ci/words.py
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/.docs ## build the documentation's site into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

.venv/.docs: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[docs]' $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))
	touch $@

clean: ## remove .venv and caches, but not runs/
	rm -rf .venv .pytest_cache .ruff_cache build site *.egg-info

.PHONY: help setup run test test-long slurm-test eval studio bench lint docs clean
