# Every target sets itself up. The two that matter: make demo, make test.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PY := .venv/bin/python -P
PYTEST := $(PY) -m pytest
# Whole installations wait more than they compute, so those that are killed and those that are watched run beside the rest;
# of the heavy counts about half of the time runs beside the other half.
KILLED := tests/kills tests/property tests/contract/test_store_crash.py
SOAKED := left or (property and not long_lives)
WATCHED := tests/e2e tests/live tests/unit/api/test_process.py tests/unit/api/test_disaster.py

.PHONY: help setup demo test lint soak fuzz test-gpu test-kubernetes-real bench-loop bench-main bench-farm bench-engine bench-kubernetes pictures lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: ## a film, its masters and a training run on this machine, and what happened (4-10 minutes after downloads)
	@bin/setup
	@.venv/bin/shisuan demo

test: ## lint, types, import contracts and the test suite (10 to 15 minutes on 2 cores)
	@bin/setup test
	@$(MAKE) --no-print-directory lint
	@mkdir -p build
	@$(PYTEST) -m "not soak and not gpu" $(KILLED) >build/test-killed.log 2>&1 & killed=$$!; \
	$(PYTEST) -m "not soak and not gpu" $(WATCHED) >build/test-watched.log 2>&1 & watched=$$!; \
	$(PYTEST) -m "not soak and not gpu" $(foreach place,$(KILLED) $(WATCHED),--ignore=$(place)); failed=$$?; \
	wait $$killed || failed=1; wait $$watched || failed=1; \
	cat build/test-killed.log build/test-watched.log; exit $$failed

lint:
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --cache-dir build/import-linter

soak: ## the heavy counts (25 to 35 minutes on 2 cores)
	@bin/setup test
	@mkdir -p build
	@$(PYTEST) -m soak -k "$(SOAKED)" >build/soak-left.log 2>&1 & left=$$!; \
	$(PYTEST) -m soak -k "not ($(SOAKED))"; failed=$$?; \
	wait $$left || failed=1; cat build/soak-left.log; exit $$failed

fuzz: ## the property tests' heavy counts with seeds nobody has seen yet; what fails prints its seed (about 10 minutes)
	@bin/setup test
	@$(PYTEST) -m soak --hypothesis-profile=default tests/property

test-gpu: ## what needs a real NVIDIA card
	@bin/setup test
	@$(PYTEST) -m gpu

test-kubernetes-real: ## the Kubernetes contract on a real API server: KUBEBUILDER_ASSETS=folder (or KUBECONFIG=file) CRDS=folder
	@bin/setup test
	@SHISUAN_KUBERNETES=real SHISUAN_KUBERAY_CRDS="$(CRDS)" $(PYTEST) tests/contract/kube/test_api_server.py tests/contract/kube/test_leader.py tests/contract/kube/test_rights.py tests/contract/kube/test_accepted.py

pictures: ## draw the pictures of the guides anew from build/demo, whose service must still run
	@bin/setup test
	@.venv/bin/python -m tests.e2e.pictures build/demo

bench-main: ## renders, transcodes, trainings and the demo beside their peers -> build/bench/main.json (about 20 minutes)
	@bin/setup test
	@$(PY) -m benchmarks.main

bench-loop: ## overhead per task, submit speed, memory -> build/bench/loop.json
	@bin/setup test
	@$(PY) -m benchmarks.loop

bench-engine: ## the engine beside the published schedulers on their traces: make bench-engine TRACES=folder -> build/bench/engine.json
	@test -n "$(TRACES)" || { echo "make bench-engine TRACES=folder (BENCHMARKS.md says where the traces come from)"; exit 2; }
	@bin/setup test
	@$(PY) -m benchmarks.engine $(TRACES)

bench-farm: ## fill and feed a farm without machines, storm, memory, restart -> build/bench/farm.json (about 5 minutes)
	@bin/setup test
	@$(PY) -m benchmarks.farm

bench-kubernetes: ## follow 5,000 nodes of an API server double: time, memory, requests -> build/bench/kubernetes.json
	@bin/setup test
	@$(PY) -m benchmarks.kubernetes

lock: ## resolve the dependencies again (a deliberate act: review the diff)
	@bin/setup
	@.venv/bin/uv pip compile pyproject.toml --all-extras --python-version 3.11 --universal --generate-hashes --no-header -q -o requirements.lock

clean: ## remove what was built, keep the environments
	@rm -rf build *.egg-info .mypy_cache .ruff_cache .pytest_cache
