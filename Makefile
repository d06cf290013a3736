# make demo    the main job of every part of molml on embedded data; leaves figures, models and a report in results/
# make test    the tests
# make ci      what the continuous integration runs: tests, lint, types, import rules
# make long    the checks that take minutes or need data outside the repository
# make lessons the lessons in examples/course, in full; figures in results/course
# make clean   removes what the others made
#
# The first call makes a virtual environment, .venv, with CPU torch where one can be had; PyTorch for GPUs with
#   make demo TORCH=gpu
# and another Python with
#   make demo PYTHON=python3.12

PYTHON ?= python3
TORCH ?= cpu
VENV ?= $(if $(filter gpu,$(TORCH)),.venv-gpu,.venv)
BIN := $(VENV)/bin
READY := $(VENV)/ready
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-compile

# the local version +cpu never is the gigabytes of CUDA; it exists only where a CPU wheel lies at hand, and pip knows
# that within seconds. The next is the same release as the index has it, the last whatever runs on this machine.
CPU_TORCH := $(PIP) 'torch==2.13.0+cpu' 2>/dev/null || $(PIP) 'torch==2.13.0' 2>/dev/null || $(PIP) 'torch>=2.10'
GPU_TORCH := $(PIP) 'torch>=2.10'
HAS_TORCH := $(BIN)/python -c 'import sys, torch; sys.exit(torch.__version__ < torch.torch_version.TorchVersion("2.10"))'

# what is imported is compiled once and kept: every process that starts would else spend seconds on it
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test ci lint long lessons clean

demo: $(READY)
	$(BIN)/molml demo --output results

test: $(READY)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadgroup --no-loadscope-reorder

ci:
	.ci/run

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

long: $(READY)
	$(BIN)/python -m pytest -m long

lessons: $(READY)
	@for lesson in examples/course/*.py; do echo "== $$lesson"; $(BIN)/python "$$lesson" || exit 1; done

clean:
	rm -rf .venv .venv-gpu results build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "molml needs Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# a torch that is there already is kept, and the constraint keeps what comes later from replacing it
$(VENV)/torch: $(VENV)/python
	@echo "PyTorch, once; about a minute"
	@$(HAS_TORCH) 2>/dev/null || $(if $(filter gpu,$(TORCH)),$(GPU_TORCH),$(CPU_TORCH))
	@$(BIN)/python -c 'from importlib.metadata import version; print("torch==" + version("torch"))' > $@.part
	@mv $@.part $@

$(READY): $(VENV)/torch setup.cfg pyproject.toml
	@echo "molml and what it needs, once; about a minute"
	@$(PIP) --quiet --constraint $(VENV)/torch --editable '.[test]'
	@touch $@
