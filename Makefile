# make install && make test; `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
# The version that everything is tested with; on Linux pip's usual build of it is the one for CUDA (about 3 GB).
TORCH ?= torch==2.13.0
# An index that holds other builds of torch (CPU only, another CUDA), if that is wanted.
TORCH_INDEX ?=
WORKERS ?= 2
PYTEST_ARGS ?=
# Options of examples/experiments/run.py.
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMP := $(VENV)/.installed
LOG := $(VENV)/install.log
comma := ,

.PHONY: help install lint docs format test demo demo-quick experiments grid benchmarks clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16
	@echo "variables: PYTHON, VENV, TORCH, TORCH_INDEX, WORKERS, PYTEST_ARGS, ARGS"

install: $(STAMP) ## set up $(VENV) with everything that is needed

# $(call step,what is done,command): one line a step, its output in the log, shown if it fails
define step
	@printf '%-58s' "$(1)"; start=$$(date +%s); \
	if { $(2); } >>$(LOG) 2>&1; then echo "$$(( $$(date +%s) - start )) s"; \
	else echo failed; tail -n 30 $(LOG); echo "the whole log: $(LOG)"; exit 1; fi
endef

$(STAMP): setup.py pyproject.toml av_ssl_fairseq_hook.pth requirements/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || { \
	  echo "$(PYTHON) is missing or not Python 3.10 to 3.13: name one with make install PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian, Ubuntu: python3-venv)"; exit 1; }
	@test -e $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@: >$(LOG)
	@command -v nvidia-smi >/dev/null || test -n "$(TORCH_INDEX)" || \
	  echo "no NVIDIA GPU found: TORCH_INDEX can name an index with CPU builds of torch, which are smaller"
	$(call step,$(TORCH),$(PIP) install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)")
	$(call step,av_ssl and what it needs,$(PIP) install -c requirements/constraints.txt -e ".[preprocess$(comma)toy$(comma)dev]")
	$(call step,stock fairseq (compiled here$(comma) needs a C++ compiler),$(BIN)/python -m av_ssl.compat.install_fairseq)
	$(call step,import of everything,cd / && $(abspath $(BIN))/python -c "import fairseq$(comma) av_ssl.compat")
	@touch $@


lint: install ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install ## the documentation as a site, in site/; its links are checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

format: install ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: install ## all tests, on $(WORKERS) processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

demo: install ## corpus of talking faces, pre-training, fine-tuning, decoding
	$(BIN)/python examples/toy/demo.py

demo-quick: install ## the same in a few minutes, to see that it runs
	$(BIN)/python examples/toy/demo.py --quick

experiments: install ## every method on the toy corpora, three seeds, into out/ (hours); ARGS="--quick --seeds 1": minutes
	$(BIN)/python examples/experiments/run.py --corpus toy $(ARGS)
	$(BIN)/python examples/experiments/run.py --corpus toy_emotions $(ARGS)
	$(BIN)/python examples/experiments/run.py --corpus toy_emotions_0 $(ARGS)

grid: install ## every method on GRID, few labels, into out/grid (hours); GRID=DIR: folder with s1/, s2/, ...
	$(BIN)/python examples/experiments/run.py --corpus grid --source "$(GRID)" $(ARGS)
	$(BIN)/python examples/experiments/run.py --corpus grid_talkers --source "$(GRID)" $(ARGS)

benchmarks: install ## every benchmark that this machine can run, into benchmarks/README.md (an idle machine; ten minutes)
	$(BIN)/python benchmarks/report.py

clean: ## remove what was built, $(VENV) included
	rm -rf $(VENV) site build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
