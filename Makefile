# Every target makes its own virtual environment in .venv if there is none.

PYTHON ?= python3
VENV ?= .venv
IN ?= examples/astronaut.png
SCALE ?= 4
OUT ?= out
MODELS ?= $(notdir $(wildcard weights/*))
# processes that share the tests out; each takes a core and up to 2 GB
TESTERS ?= 2

# PyTorch's builds for CPUs, where no GPU is seen: PyPI's for Linux bring 5 GB of CUDA and Triton.
# TORCH_INDEX= takes PyPI's all the same, and TORCH_INDEX=https://download.pytorch.org/whl/rocm6.4, say, another.
TORCH_INDEX ?= $(shell [ "$$(uname -s)" != Linux ] || nvidia-smi >/dev/null 2>&1 || echo https://download.pytorch.org/whl/cpu)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
API := clit_zoo clit_zoo.model clit_zoo.pretrained clit_zoo.geometry clit_zoo.errors clit_zoo.encoders.base \
	clit_zoo.decoders.base clit_zoo.convert clit_zoo.training clit_kernels
SOURCES := pyproject.toml setup.py

.PHONY: upscale test lint table docs compile-table clean

upscale: $(VENV)/.installed  ## enlarge IN by SCALE into OUT
	$(BIN)/clit-zoo upscale "$(IN)" --scale $(SCALE) -o "$(OUT)/" --overwrite

test: $(VENV)/.installed-test  ## run the quick tests
	$(BIN)/python -m pytest -n $(TESTERS) --dist worksteal

lint: $(VENV)/.installed-dev  ## style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=.:kernels/torch-ext $(BIN)/lint-imports

table: $(VENV)/.installed  ## PSNR, time and memory of the light models: make table DATA="Set5/HR Set14/HR B100/HR"
	$(BIN)/clit-zoo eval $(DATA) $(MODELS:%=-m %) --scales 2,3,4,6,8 --no-ssim --beside none --format markdown
	$(BIN)/clit-zoo bench $(MODELS:%=-m %)

docs: $(VENV)/.installed-docs  ## the API page, into build/docs
	$(BIN)/python -W error::UserWarning -m pdoc -d google -o build/docs $(API)

compile-table: $(VENV)/.installed-test  ## compile every Triton kernel for GPUs that are not here
	$(BIN)/python kernels/compile_table.py

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "clit_zoo needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python $(SOURCES)
	@echo "Installing clit_zoo and PyTorch into $(VENV) (once; a few minutes)"
	@index="$(TORCH_INDEX)"; [ -z "$$index" ] || { \
		$(BIN)/python -c 'import sys, urllib.request as web; web.urlopen(sys.argv[1], timeout=5)' "$$index/torch/" \
			2>/dev/null && $(PIP) --index-url "$$index" torch torchvision; \
	} || echo "PyTorch comes from PyPI: $$index cannot be used."
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) -e ".[test]"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-test
	$(PIP) -e ".[dev]"
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) -e ".[docs]"
	@touch $@

clean:  ## all that the targets made but enlarged pictures
	rm -rf $(VENV) build dist *.egg-info
