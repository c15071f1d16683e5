PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
DEMO := runs/demo
# The two JAX of the lock belong to different Pythons, and so to different environments.
CUDA := $(VENV)-cuda-$(notdir $(PYTHON))
TPU := $(VENV)-tpu-$(notdir $(PYTHON))

.PHONY: demo test lint wheel accelerators clean
.DELETE_ON_ERROR:

# From synthetic recordings to a trained, evaluated recogniser. Interrupted, it goes on.
demo: $(VENV)/installed
	@mkdir -p data/raw/synthetic_imigue
	$(RUN) datasets/prepare.py synthetic_imigue --manual_dir=data/raw/synthetic_imigue --data_dir=data
	$(RUN) -m experiments.posec3d --config=experiments/configs/posec3d.py:synthetic_imigue,joint,small --workdir=$(DEMO)
	$(RUN) -m experiments.evaluate --run=$(DEMO) --split=test
	$(RUN) -m experiments.predict --run=$(DEMO) --input=data/raw/synthetic_imigue/example_clip.csv
	@echo "Look at $(DEMO): test/confusion.png, test/views.png, metrics.jsonl; jaxmg report $(DEMO)"

test: $(VENV)/installed
	$(RUN) -m pytest -q --numprocesses=2 --dist=loadfile --no-loadscope-reorder

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

wheel: $(VENV)/installed
	$(RUN) -m build --wheel --no-isolation

# Compiles the programs for an NVIDIA GPU and for a Cloud TPU, and needs neither (docs/accelerators.md).
accelerators: $(CUDA)/installed $(TPU)/installed
	$(CUDA)/bin/python -m benchmarks.compiled --platform=cuda --jobs=2
	$(TPU)/bin/python -m benchmarks.compiled --platform=tpu --jobs=2

# The JAX of the lock, with what it needs for the platform.
$(CUDA)/installed: EXTRA := cuda13
$(TPU)/installed: EXTRA := tpu
$(CUDA)/installed $(TPU)/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(@D)/bin/pip install --quiet --disable-pip-version-check 'jax[$(EXTRA)]'
	$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/installed: requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "jaxmg needs Python 3.11 to 3.13: no $(PYTHON) here (apt install python3 python3-venv)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { echo "jaxmg needs Python 3.11 to 3.13: $$($(PYTHON) --version) is another (make PYTHON=python3.12)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "jaxmg needs venv and pip: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

clean:
	rm -rf runs/demo build dist *.egg-info .pytest_cache .ruff_cache
