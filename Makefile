# Every target sets up what it needs. One environment (.venv) serves demo, tests and checks.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3,$(shell command -v $(name))))
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
EXTRAS := $(VENV)/.extras
BROWSER := $(VENV)/.browser
LM_EVAL := $(VENV)/.lm-eval
VLLM_VENV := .venv-vllm
VLLM ?= $(if $(shell command -v nvidia-smi),gpu,cpu)
VLLM_STAMP := $(VLLM_VENV)/.stamp-$(VLLM)
export DO_NOT_TRACK := 1
unexport PYTHONDONTWRITEBYTECODE  # the tests start hundreds of processes, each of which would compile HEAL again
export HF_HUB_OFFLINE ?= 1

define check_python
@test -n "$(PYTHON)" || { echo "HEAL needs Python 3.11, and none is on PATH. Install it, or: make PYTHON=/path/to/python3.11"; exit 2; }
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' || { echo "HEAL needs Python 3.11 or 3.12, found $$($(PYTHON) --version)"; exit 2; }
endef

.PHONY: help demo vllm lm-eval deploy-local test bench check check-full lint types contracts lab-check clean

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

$(STAMP): requirements.lock pyproject.toml
	$(check_python)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	@touch $(STAMP)

# Built from source, so never what the demo waits for; where it fails, the tests that need it are skipped.
$(EXTRAS): requirements-extras.lock $(STAMP)
	@if $(BIN)/pip install --quiet --no-deps --retries 1 --requirement requirements-extras.lock; then touch $(EXTRAS); \
	else echo "reasoning-gym and tensorboard could not be installed (is there a C compiler, gcc?): the tests that need them are skipped"; fi

# what the tests look at pages with; where none is to be had, they are skipped
$(BROWSER): tests/browser/chromium.py $(STAMP)
	@if $(BIN)/python -m tests.browser.chromium; then touch $(BROWSER); fi

$(LM_EVAL): requirements-lm-eval.lock $(STAMP)
	$(BIN)/pip install --quiet --no-deps --requirement requirements-lm-eval.lock
	@touch $(LM_EVAL)

# an environment of its own, since vLLM and Prefect cannot be installed together (deployments/vllm/README.md)
$(VLLM_VENV)/.stamp-%: deployments/vllm/requirements-%.txt
	$(check_python)
	rm -rf $(VLLM_VENV)
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/pip install --quiet $(if $(filter cpu,$*),--no-deps) --requirement $<
	@$(VLLM_VENV)/bin/python -P deployments/vllm/check.py $*
	@touch $@

demo: $(STAMP)  ## Distil the lab's student from its teacher: the whole pipeline, some minutes on 2 cores
	$(BIN)/heal run deployments/lab/demo.yaml

vllm: $(VLLM_STAMP)  ## Install vLLM into .venv-vllm, for CPUs where there is no nvidia-smi (or VLLM=cpu, VLLM=gpu): some minutes, 3 GB

deploy-local: $(STAMP)  ## Start a Prefect server and a worker here, with the nightly runs deployed, until Ctrl-C
	@exec $(BIN)/python -m deployments.local

test: $(STAMP) $(EXTRAS) $(BROWSER)  ## Run the tests, on up to 4 cores
	$(BIN)/python -m pytest -m "not full" -n logical --maxprocesses 4 --dist loadgroup --no-loadscope-reorder --durations 60 --durations-min 5

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

contracts: $(STAMP)
	$(BIN)/lint-imports --no-cache

check: lint types contracts test  ## Everything that has to be green before a commit lands

lm-eval: $(LM_EVAL)  ## Install lm-evaluation-harness (evaluation.lm_eval): every import of transformers then takes seconds more

check-full: check $(LM_EVAL)  ## The long tier: many random kills; its outcome is noted in docs/verification.md
	$(BIN)/python -m pytest -m full

bench: $(STAMP)  ## Print the benchmarks' figures as JSON lines (docs/benchmarks.md): 22 minutes, 4 GB of disk
	rm -rf build/synthetic
	@$(BIN)/python -m benchmarks.ingest
	@$(BIN)/python -m benchmarks.encodings
	@$(BIN)/python -m benchmarks.publish
	@$(BIN)/python -m benchmarks.cleaning
	@$(BIN)/python -m benchmarks.synthetic --trajectories 1000000 build/synthetic
	@$(BIN)/python -m benchmarks.queries build/synthetic
	rm -rf build/synthetic

lab-check: $(STAMP)  ## Print whether the lab is fit for use (docs/lab.md)
	$(BIN)/python -m deployments.lab.check

clean:  ## Remove the environments and the demo's workspace
	rm -rf $(VENV) $(VLLM_VENV) demo
