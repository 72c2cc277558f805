PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2

.PHONY: bench test test-fast speed lint notebooks test-matrix train clean

bench: $(READY)  ## samples the bundled model with one sampler per family, leaves runs/bench/report.html
	$(BIN)/fewstep bench --n 64 --repeats 2

test: $(READY)  ## the whole test suite, in two processes
	$(PYTEST) --dist loadfile

test-fast: $(READY)  ## without the slow tests
	$(PYTEST) --dist loadfile -m "not slow"

speed: $(READY)  ## ratios of times, beside what was asked of them; wants an idle machine
	OMP_NUM_THREADS=1 $(BIN)/python tests/speed.py

lint: $(READY)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: $(READY)  ## runs every notebook
	$(PYTEST) --nbmake --nbmake-timeout=900 notebooks

test-matrix: $(READY)  ## the contract tests on the oldest and the newest diffusers
	for version in "diffusers==0.40.*" "diffusers"; do \
	  $(PYTHON) -m venv .venv-matrix && \
	  .venv-matrix/bin/pip install -q --upgrade "$$version" -e ".[dev]" && \
	  .venv-matrix/bin/pytest -q tests/test_common*.py tests/test_config.py tests/test_parity*.py tests/test_pipelines*.py \
	    tests/test_scheduler*.py tests/test_set_timesteps.py || exit 1; \
	  rm -rf .venv-matrix; \
	done

train: $(READY)  ## trains the bundled models again (hours)
	$(BIN)/python -m fewstep.models.train_fashion denoiser
	$(BIN)/python -m fewstep.models.train_fashion classifier
	$(BIN)/python -m fewstep.models.train_fashion weak
	$(BIN)/python -m fewstep.models.train_minority score
	$(BIN)/python -m fewstep.models.train_minority classifier

clean:
	rm -rf $(VENV) .venv-matrix runs/bench dist build .pytest_cache .hypothesis .mypy_cache .ruff_cache

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip
	$(BIN)/pip install -q -e ".[dev,fid,notebooks]"
	touch $@
