# The first of these that is recent enough and can make an environment; PYTHON=... takes another.
# 3.11 is what the tests run on, and wheels for the newest may be missing, so it comes first.
RECENT := import ensurepip, sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3, \
  $(shell $(name) -c '$(RECENT)' 2>/dev/null && echo $(name))))
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
	OMP_NUM_THREADS=1 $(BIN)/python tests/support/speed.py

lint: $(READY)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: $(READY)  ## runs every notebook
	$(PYTEST) --nbmake --nbmake-timeout=900 notebooks

test-matrix: $(READY)  ## contract and pipeline tests on three versions of diffusers, a line for each
	@$(MAKE) --no-print-directory --keep-going matrix-0.35 matrix-0.37 matrix-newest

# A version and what it needs lie in a folder that comes before .venv, whose torch is used by all.
# 0.35 imports a tokenizer that transformers 5 no longer has, and its Wan cannot do without ftfy.
matrix-0.35: NEEDS = "diffusers==0.35.*" "transformers<5" ftfy
matrix-0.37: NEEDS = "diffusers==0.37.*" transformers
matrix-newest: NEEDS = diffusers transformers
CONTRACT := tests/samplers/adapter tests/schedules/test_config.py tests/schedules/test_distilled.py \
  $(wildcard tests/samplers/solvers/test_parity*.py tests/eval/problems/test_pipeline*.py) \
  tests/guidance/test_attach.py tests/guidance/test_attach_draws.py tests/eval/cli/test_doctor.py

matrix-%: $(READY)
	@$(BIN)/pip install -q --upgrade --target .matrix/$* $(NEEDS)
	@PYTHONPATH=$(CURDIR)/.matrix/$*:$(CURDIR)/src OMP_NUM_THREADS=1 \
	  $(BIN)/pytest -q -n 2 --dist loadfile $(CONTRACT) > .matrix/$*.log; failed=$$?; \
	  grep -E "^(FAILED|ERROR)" .matrix/$*.log; \
	  echo "diffusers $*: $$(tail -n 1 .matrix/$*.log)"; exit $$failed

train: $(READY)  ## trains the bundled models again (hours)
	$(BIN)/python -m fewstep.models.training.train_fashion denoiser
	$(BIN)/python -m fewstep.models.training.train_fashion classifier
	$(BIN)/python -m fewstep.models.training.train_fashion weak
	$(BIN)/python -m fewstep.models.training.train_minority score
	$(BIN)/python -m fewstep.models.training.train_minority classifier

clean:
	rm -rf $(VENV) .matrix runs/bench dist build .pytest_cache .hypothesis .mypy_cache .ruff_cache

$(READY): pyproject.toml
	$(if $(PYTHON),,$(error fewstep needs Python 3.11 or later with venv, and no python3 here is one: install it, or name it as in make PYTHON=/path/to/python3.12))
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip
	$(BIN)/pip install -q -e ".[dev,fid,notebooks]"
	touch $@
