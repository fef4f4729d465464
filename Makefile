# What can be done with this repository. Needs Python 3.11 that can make virtual environments (on Debian the
# packages python3 and python3-venv) and make; everything else is installed into .venv, nothing outside it.
# `make` alone lists the verbs: the text after `##` of each target.

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# The interpreter that .venv is made with; empty: python3.11, or python3 when it is 3.11.
PYTHON ?=
BIN := .venv/bin

TYPED := libs services deploy tests
LOCK_OPTIONS := --quiet --generate-hashes --allow-unsafe --strip-extras --no-header \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options

# Extra arguments of the command, for instance: make test ARGS="-k deadline --randomly-seed=1"
ARGS ?=

# -- for people who look

.PHONY: help
help: ## list these verbs
	@sed -n 's/^\([a-z][a-z0-9-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r verb says; do printf '%-26s %s\n' "  $$verb" "$$says"; done

.PHONY: demo
demo: install ## start servers, fleet and a demonstration platform, make requests, show what came of them
	@$(BIN)/python -m habeas_demo $(ARGS)

.PHONY: up
up: install ## start servers and fleet, and keep them until Ctrl-C
	@$(BIN)/habeas up $(ARGS)

# -- for people who work on it

.PHONY: install
install: ## install everything into .venv (a second run costs nothing; a broken .venv is made anew)
	@PYTHON='$(PYTHON)' sh deploy/install.sh

.PHONY: check
check: check-style check-types check-layers check-containers check-documents ## everything that can be checked without a server

.PHONY: check-style
check-style: install ## ruff: rules and form
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: check-types
check-types: install ## mypy, strict, over code and tests
	$(BIN)/mypy $(TYPED)

.PHONY: check-layers
check-layers: install ## import-linter: who may import whom
	$(BIN)/lint-imports

.PHONY: check-containers
check-containers: install ## docker-compose.yml by its schema, Dockerfile by hadolint, commit hooks by pre-commit
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/pre-commit validate-config

.PHONY: check-documents
check-documents: install ## house lints, documents against the code, messages against the committed schemas
	$(BIN)/python -m pytest -q $(wildcard tests/architecture tests/contracts) $(ARGS)

.PHONY: fmt
fmt: install ## put code into its form and mend what can be mended by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: servers
servers: install ## fetch Kafka and make what its later starts need, once (tests have time limits, a first fetch has none)
	@$(BIN)/python -m habeas_embedded.servers --prepare

.PHONY: test
test: servers ## every test: unit, contracts, architecture, integration, property, simulation, e2e (starts its own servers)
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadscope --no-loadscope-reorder $(ARGS)

.PHONY: test-unit
test-unit: install ## tests that need nothing: unit, contracts, architecture
	$(BIN)/python -m pytest -m "unit or contracts or architecture" $(ARGS)

.PHONY: test-integration
test-integration: install ## tests that need PostgreSQL: integration, property, simulation
	$(BIN)/python -m pytest -m "integration or property or simulation" $(ARGS)

.PHONY: test-e2e
test-e2e: servers ## whole journeys over real Kafka, PostgreSQL and SMTP
	$(BIN)/python -m pytest -m e2e $(ARGS)

.PHONY: test-sim
test-sim: install ## 10,000 schedules of faults over the delivery core, 300 over whole lives; false clock (ARGS="--schedules=… --lives=… --seed=…")
	$(BIN)/python -m pytest tests/simulation --numprocesses=2 --dist=loadscope --no-loadscope-reorder -o faulthandler_timeout=0 --schedules=10000 --lives=300 $(ARGS)

.PHONY: test-maps
test-maps: install ## the two laws of the data map over 20,000 random schemas, maps and rows (ARGS="--schemas=… --seed=…")
	$(BIN)/python -m pytest tests/property -o faulthandler_timeout=0 --schemas=20000 $(ARGS)

.PHONY: test-kill
test-kill: servers ## fault campaign: kills, pauses, cuts, full disks, wrong clocks under load (ARGS=--long for 1,000 kills)
	$(BIN)/python -m pytest tests/kill -s -o faulthandler_timeout=0 --show-capture=no $(ARGS)

.PHONY: test-crash
test-crash: servers ## every service dies at every crash point, over real servers (some three minutes)
	$(BIN)/python -m pytest tests/crash -o faulthandler_timeout=0 $(ARGS)

.PHONY: test-loss
test-loss: servers ## Kafka's data deleted, PostgreSQL restarted and failed over to a replica, under load (about five minutes)
	$(BIN)/python -m pytest tests/loss -o faulthandler_timeout=0 --show-capture=no $(ARGS)

.PHONY: test-fuzz
test-fuzz: servers ## records altered at random, for the reader and through a running fleet (ARGS="--records=1000000 --sent=50000 --seed=…")
	$(BIN)/python -m pytest tests/fuzz -s -o faulthandler_timeout=0 $(ARGS)

.PHONY: test-schemas
test-schemas: install ## seven applications from their packages: migrated, filled, drafted, people erased and exported (installs them once)
	$(BIN)/python -m pytest tests/schemas -s -o timeout=0 -o faulthandler_timeout=0 $(ARGS)

.PHONY: bench
bench: servers ## every benchmark: tables, JSON and charts
	$(BIN)/python -m tests.bench $(ARGS)

.PHONY: bench-pipeline
bench-pipeline: servers ## one benchmark: events and erasures through the fleet (also: bench-history, bench-mails, …)
	$(BIN)/python -m tests.bench pipeline $(ARGS)

bench-%: servers
	$(BIN)/python -m tests.bench $* $(ARGS)

.PHONY: lock
lock: install ## write requirements.lock and deploy/requirements.lock anew (ARGS=--upgrade for newer versions)
	$(BIN)/pip-compile $(LOCK_OPTIONS) $(ARGS) --output-file requirements.lock requirements.in
	$(BIN)/pip-compile $(LOCK_OPTIONS) $(ARGS) --constraint requirements.lock --no-annotate --output-file deploy/requirements.lock deploy/requirements.in

.PHONY: compose-env
compose-env: install ## write .env with random passwords, and a key ring, for docker-compose.yml (kept when there)
	@$(BIN)/python deploy/compose_env.py

.PHONY: clean
clean: ## remove .venv, caches, build outputs and the local fleet's data
	rm -f .venv/.whole
	rm -rf .venv .habeas .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find libs services deploy tests -name __pycache__ -type d -prune -exec rm -rf {} +
