# `make demo` and `make test` set themselves up; all they need is Python 3.11 or newer with its venv module.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

# Small models on few cores: one thread a process, idle threads sleep, and freed memory stays with the process
# instead of being given back and faulted in again for the next tensor (docs/dependencies.md).
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= passive
export MALLOC_MMAP_MAX_ ?= 0
export MALLOC_TRIM_THRESHOLD_ ?= 4294967296

.PHONY: demo test packages docs release lint format clean

demo: $(READY)
	rm -rf runs/demo
	$(BIN)/videogpa run embedded --out runs/demo

test: lint
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Builds the wheel twice, tries it in an empty environment, and says what it is made of (docs/releasing.md).
release: $(READY)
	$(BIN)/python -m pip install -qq -c constraints.txt -e '.[release]'
	$(BIN)/python release/make.py

# What the tests of the study want beside Python, on Debian and as root; without it they are skipped.
packages:
	apt-get -qq update
	DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium postgresql > /dev/null

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv runs build dist site .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# Written last, so that an interrupted set-up is done again.
$(READY): pyproject.toml constraints.txt
	@echo "setting up .venv (a few minutes, once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq -c constraints.txt -e '.[dev]'
	@$(BIN)/python -m pip install -qq --no-deps -c constraints.txt depth-anything-3
	@touch $@
