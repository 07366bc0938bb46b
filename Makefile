# Everything runs in .venv, which the targets make when it is missing or pyproject.toml has changed.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
# Length and log directory of the demo; a directory with a checkpoint continues from it.
STEPS ?=
DIR ?= runs/demo
SHARED := ../shared

.DEFAULT_GOAL := help

.PHONY: help
help: ## Lists the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: setup
setup: $(VENV)/.installed ## Makes .venv with the package and what the demo needs

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Pax needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet --constraint constraints.txt --editable ".[demo]"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

.PHONY: demo
demo: $(VENV)/.installed ## Trains a language model on Python's own sources (STEPS=20 DIR=folder: quick form)
	$(PY) -m examples.stdlib_lm.demo --job_log_dir="$(DIR)" $(if $(STEPS),--steps=$(STEPS))

.PHONY: digits
digits: $(VENV)/.installed ## Trains a small vision transformer with each optimizer, ~10 seconds each
	$(PIP) install --quiet --constraint constraints.txt --editable ".[digits]"
	$(PY) -m examples.digits.train $(ARGS)

.PHONY: toys
toys: $(VENV)/.installed ## Trains a convolutional, a recurrent and a state space network, ~20 seconds each
	$(PIP) install --quiet --constraint constraints.txt --editable ".[digits]"
	$(PY) -m examples.toys.run $(ARGS)

.PHONY: test
test: $(VENV)/.installed-dev ## Runs the tests, and the examples in docstrings
	$(PY) -m pytest -q --doctest-modules praxis paxml
	$(PY) -m pytest -n 2 -q

.PHONY: golden
golden: $(VENV)/.installed-dev ## Writes the parameter trees under tests/golden anew
	$(PY) -m pytest -q tests/test_registry.py --update-golden

.PHONY: docs-errors
docs-errors: $(VENV)/.installed-dev ## Writes docs/errors.md anew
	JAX_PLATFORMS=cpu XLA_FLAGS= $(PY) -m docs.generate_errors

.PHONY: lint
lint: $(VENV)/.installed-dev ## Format, lint, types and import order
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/basedpyright
	$(VENV)/bin/lint-imports

.PHONY: recorded
recorded: $(VENV)/.installed-dev ## Compares with recorded behaviour, where that folder stands beside the checkout
	.ci/recorded $(SHARED)

.PHONY: parity-hf
parity-hf: ## Compares pretrained families with the transformers package, in an environment of its own
	test -x .venv-hf/bin/python || $(PYTHON) -m venv .venv-hf
	.venv-hf/bin/python -m pip --disable-pip-version-check install --quiet torch==2.13.0 "transformers>=5.24"
	.venv-hf/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt --editable ".[test]"
	.venv-hf/bin/python -m pytest -q tests_hf

.PHONY: bench
bench: $(VENV)/.installed ## Pax against programs of the same maths, ~15 minutes (BENCH=name ARGS=--quick)
	$(PIP) install --quiet --constraint constraints.txt --editable ".[bench]"
	$(PY) -m benchmarks.run $(if $(BENCH),--only=$(BENCH)) $(ARGS)

.PHONY: soak
soak: $(VENV)/.installed ## Kills and damages a tiny run for half an hour (ARGS=--minutes=3), counts lost steps
	$(PY) -m benchmarks.soak $(ARGS)

.PHONY: scale
scale: $(VENV)/.installed ## The same run on a device, a mesh and in 4 processes, some of them killed, ~10 minutes
	$(PY) -m benchmarks.scale_processes $(ARGS)

.PHONY: bench-optimizers
bench-optimizers: $(VENV)/.installed ## Bytes that each optimizer keeps for a parameter
	$(PY) -m benchmarks.optimizer_memory $(ARGS)

.PHONY: package
package: $(VENV)/.installed-dev ## Builds the wheel and the source distribution into dist/
	$(PY) -m build --outdir dist

.PHONY: lock
lock: ## Writes constraints.txt from what the newest versions resolve to
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip --disable-pip-version-check install --quiet ".[dev]"
	.venv-lock/bin/python -m pip --disable-pip-version-check freeze --exclude pax > constraints.txt
	rm -rf .venv-lock

.PHONY: clean
clean: ## Removes .venv, runs and build results
	rm -rf $(VENV) .venv-hf runs dist build
