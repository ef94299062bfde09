# The commands of the README and of development. All tools run in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= 2
BENCH ?= quick
QUIET := --quiet --disable-pip-version-check

# Containers often set this; then each of the demo's 50 processes would compile half of torch again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo figures test setup lint docs audit bench clean

## demo: install, run the whole pipeline at small scale, print the headline table and the paths of the results
demo: setup
# The runs of Table 1 take longest; started first, they leave the short ones to fill the cores at the end.
	$(BIN)/snakemake --cores $(CORES) all --prioritize results/tables/table1.csv
	$(BIN)/snakemake --cores 1 --report results/report.html all
	@echo
	@$(BIN)/apao headline
	@echo 'tables   results/tables/ (csv, md, html, tex)'
	@echo 'figures  figures/ (png, pdf, with their numbers and captions)'
	@echo 'report   results/report.html'

## figures: every table and figure of the published runs, in a minute, without training
figures: setup
	$(BIN)/snakemake --cores $(CORES) published
	@echo 'tables   results/published/tables/'
	@echo 'figures  figures/published/'

## test: the whole test suite
test: setup
	$(BIN)/pytest -n $(CORES) --no-loadscope-reorder

## setup: the virtual environment with the locked dependencies
setup: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "apao needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
# The lock is complete, so nothing has to be resolved, except the dependencies of the CUDA build of torch.
# Bytecode is compiled on first import: most modules are never imported.
	$(BIN)/pip install $(QUIET) --no-compile --no-deps -r requirements.lock
	$(BIN)/pip install $(QUIET) --no-deps --editable .
	@$(BIN)/pip check > /dev/null || $(BIN)/pip install $(QUIET) -r requirements.lock
	touch $@

## lint: style, types and the workflow's own checks
lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/snakefmt --check workflow
	$(BIN)/snakemake --lint

## docs: the documentation as a site in site/; a warning or a broken link is an error
docs: $(VENV)/.docs
# Not --quiet, with which warnings are not counted, and so are no errors.
	@mkdir -p logs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict > logs/docs.log 2>&1 || { cat logs/docs.log; exit 1; }
	@echo 'docs     site/index.html'

$(VENV)/.docs: $(VENV)/.installed requirements-docs.lock
	$(BIN)/pip install $(QUIET) --no-compile --no-deps -r requirements-docs.lock
	touch $@

## audit: known vulnerabilities of the locked packages, if PyPI is reachable
audit:
	$(PYTHON) .ci/audit.py

## bench: measure the speed; BENCH is quick (the default), full or gpu
bench: setup
	$(BIN)/python -m benchmarks run $(BENCH)

clean:
	find results -mindepth 1 -maxdepth 1 ! -name published -exec rm -rf {} +
	rm -rf data figures/* logs site .snakemake
