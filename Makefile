# Everything from a fresh machine with Python >= 3.11 and make. All of it lands in .venv.
PYTHON ?= python3
# The benchmarks' own; dynamoxy takes part from 3.12 on.
BENCH_PYTHON ?= $(PYTHON)

BIN := .venv/bin
STAMPS := .venv/.stamps
KERNELS := $(wildcard src/chalk_online_store/codec/_kernels*.[ch])
BENCH := .bench-venv
FEAST_SUITE := .feast-venv
DISTRIBUTED := .distributed-venv
SOURCES := pyproject.toml setup.py $(shell find src -type f ! -name '*.pyc' ! -name '*.so')

# Each worker and each command that a test starts would compile every module again without this.
export PYTHONDONTWRITEBYTECODE :=

# Test processes. Tests mostly wait, so there are more than cores.
WORKERS ?= 4
PARALLEL = --numprocesses $(WORKERS) --dist loadscope
# What `make test-all` multiplies the rounds of attack tests by.
STRESS ?= 20

# Percent of lines that the tests run, outside the command line.
COVERED ?= 90

TESTED = $(STAMPS)/dev $(STAMPS)/engines $(STAMPS)/ministack $(STAMPS)/redis $(STAMPS)/provider-schema

.PHONY: demo test test-all coverage matrix lock ruff test-feast test-distributed licences fuzz sanitize lint bench bench-feast bench-valkey chaos wheels docs clean

demo: $(STAMPS)/demo $(STAMPS)/engines
	$(BIN)/chalk-online-store demo --engine dynoxide

# mypy is one of the tests: it takes as long as many of them, and runs beside them.
test: ruff $(TESTED)
	$(BIN)/python -m pytest $(PARALLEL) --durations 25

# The same tests with many more rounds: nightly, and before a release.
test-all: ruff $(TESTED)
	CHALK_STRESS=$(STRESS) $(BIN)/python -m pytest $(PARALLEL) --durations 25
	$(MAKE) test-distributed
	$(BIN)/python -m scripts.matrix

# The same tests, with the lines counted that they run in any process.
coverage: $(TESTED)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(PARALLEL)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --omit "*/chalk_online_store/cli/*" --fail-under $(COVERED)
	$(BIN)/coverage report --include "*/chalk_online_store/cli/*"

# Other Pythons, dependencies and engines; ROWS="engines redis" are some rows of the table.
matrix: $(TESTED)
	$(BIN)/python -m scripts.matrix $(ROWS)

# tests/constraints/locked.txt: what pip settles on today.
lock: $(STAMPS)/dev
	$(BIN)/python -m scripts.matrix --lock

# Feast's own tests of online stores: FEAST=DIR is a checkout of it, URL=... a store to test.
test-feast: $(STAMPS)/dev $(STAMPS)/engines $(FEAST_SUITE)/.ours
	$(BIN)/python scripts/feast_suite.py $(FEAST) --python $(FEAST_SUITE)/bin/python $(URL:%=--url "%")

# Spark needs Java 17. The engines have other requirements than the rest, so they have an environment.
test-distributed: $(STAMPS)/engines $(DISTRIBUTED)/.ours
	CHALK_DYNOXIDE="$$(ls $(CURDIR)/.venv/engines/node_modules/@dynoxide/*/dynoxide)" \
		$(DISTRIBUTED)/bin/python -m pytest -W default tests/distributed

fuzz: $(STAMPS)/dev
	CHALK_STRESS=$${CHALK_STRESS:-50} $(BIN)/python -m pytest tests/test_fuzz.py

sanitize: $(STAMPS)/dev
	PYTHON=$(BIN)/python scripts/sanitize_decoder.sh

lint: ruff
	$(BIN)/mypy

ruff: $(STAMPS)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(BENCH)/.ours $(BENCH)/.feast $(BENCH)/.boto3
	$(BENCH)/main/bin/python -m benchmarks $(PARTS)

bench-feast: $(BENCH)/.ours $(BENCH)/.feast-ours
	CHALK_DYNOXIDE="$$(ls $(BENCH)/main/engines/node_modules/@dynoxide/*/dynoxide)" \
		$(BENCH)/feast/bin/python -W ignore -m benchmarks.feast_online

bench-valkey: $(BENCH)/.feast-ours
	$(BENCH)/feast/bin/python -W ignore -m benchmarks.feast_redis

# SCENARIOS="blackhole refused" runs these alone, SCENARIOS=--quick all of them shortly.
chaos: $(STAMPS)/dev $(STAMPS)/engines
	$(BIN)/python -m benchmarks.chaos $(SCENARIOS)

# The distributions that this machine can build, each tried by itself: PYTHONS="3.11 3.12" for several.
wheels: $(STAMPS)/dev
	$(BIN)/python scripts/build_wheels.py $(PYTHONS)

docs: $(STAMPS)/docs
	$(BIN)/mkdocs build --strict

licences: $(STAMPS)/dev
	$(BIN)/python -m pip install --quiet --editable ".[chalkpy,otel,plots]"
	$(BIN)/python -m scripts.licences

clean:
	rm -rf .venv .try .coverage .coverage.* $(BENCH) $(FEAST_SUITE) $(DISTRIBUTED) .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist site

# A stamp is newer than what it was made from; so a second run is quick, and an edited
# pyproject.toml or kernel is installed again.

$(STAMPS)/venv:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1" # the first with --group
	mkdir -p $(STAMPS)
	touch $@

$(STAMPS)/demo: pyproject.toml setup.py $(KERNELS) $(STAMPS)/venv
	$(BIN)/python -m pip install --quiet --editable ".[demo]"
	touch $@

$(STAMPS)/dev: pyproject.toml setup.py $(KERNELS) $(STAMPS)/venv
	$(BIN)/python -m pip install --quiet --editable ".[aioboto3,arrow,demo,feast,testing]" --group dev
	touch $@

$(STAMPS)/docs: pyproject.toml setup.py $(KERNELS) $(STAMPS)/venv
	$(BIN)/python -m pip install --quiet --editable . --group docs
	touch $@

$(STAMPS)/engines: scripts/install_engines.py $(STAMPS)/venv
	$(BIN)/python scripts/install_engines.py dynoxide
	touch $@

$(STAMPS)/ministack: scripts/install_engines.py $(STAMPS)/venv
	$(BIN)/python scripts/install_engines.py ministack
	touch $@

$(STAMPS)/redis: scripts/install_engines.py $(STAMPS)/venv
	$(BIN)/python scripts/install_engines.py redis
	touch $@

$(STAMPS)/provider-schema: scripts/provider_schema.py scripts/install_engines.py $(STAMPS)/venv
	$(BIN)/python -m scripts.provider_schema
	touch $@

# The store is installed as its users get it; Feast has other requirements than the rest.

$(BENCH)/.rivals: benchmarks/requirements.txt scripts/install_engines.py
	$(BENCH_PYTHON) -m venv $(BENCH)/main
	$(BENCH)/main/bin/python -m pip install --quiet --requirement benchmarks/requirements.txt
	$(BENCH)/main/bin/python scripts/install_engines.py dynoxide
	touch $@

$(BENCH)/.ours: $(BENCH)/.rivals $(SOURCES)
	$(BENCH)/main/bin/python -m pip install --quiet ".[aioboto3,testing]"
	$(BENCH)/main/bin/python -m pip install --quiet --force-reinstall --no-deps .
	touch $@

$(BENCH)/.feast: benchmarks/requirements-feast.txt
	$(BENCH_PYTHON) -m venv $(BENCH)/feast
	$(BENCH)/feast/bin/python -m pip install --quiet --requirement $<
	touch $@

$(BENCH)/.boto3: benchmarks/requirements-boto3.txt
	$(BENCH_PYTHON) -m venv $(BENCH)/boto3
	$(BENCH)/boto3/bin/python -m pip install --quiet --requirement $<
	touch $@

$(BENCH)/.feast-ours: $(BENCH)/.feast $(SOURCES)
	$(BENCH)/feast/bin/python -m pip install --quiet ".[testing]"
	$(BENCH)/feast/bin/python -m pip install --quiet --force-reinstall --no-deps .
	touch $@

$(FEAST_SUITE)/.feast: tests/feast_suite/requirements.txt
	$(PYTHON) -m venv $(FEAST_SUITE)
	$(FEAST_SUITE)/bin/python -m pip install --quiet --requirement $<
	touch $@

$(DISTRIBUTED)/.engines: tests/distributed/requirements.txt pyproject.toml
	$(PYTHON) -m venv $(DISTRIBUTED)
	$(DISTRIBUTED)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(DISTRIBUTED)/bin/python -m pip install --quiet --requirement $< --group tests
	touch $@

$(DISTRIBUTED)/.ours: $(DISTRIBUTED)/.engines $(SOURCES)
	$(DISTRIBUTED)/bin/python -m pip install --quiet ".[arrow,testing]"
	$(DISTRIBUTED)/bin/python -m pip install --quiet --force-reinstall --no-deps .
	touch $@

$(FEAST_SUITE)/.ours: $(FEAST_SUITE)/.feast $(SOURCES)
	$(FEAST_SUITE)/bin/python -m pip install --quiet .
	$(FEAST_SUITE)/bin/python -m pip install --quiet --force-reinstall --no-deps .
	touch $@
