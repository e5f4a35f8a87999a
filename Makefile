# Everything from a fresh machine with Python >= 3.11 and make. All of it lands in .venv.
PYTHON ?= python3

BIN := .venv/bin
STAMPS := .venv/.stamps
DECODER := src/chalk_online_store/codec/_decoder.c

.PHONY: demo test fuzz sanitize lint bench docs clean

demo: $(STAMPS)/demo $(STAMPS)/engines
	$(BIN)/chalk-online-store demo --engine dynoxide

test: lint $(STAMPS)/engines
	$(BIN)/python -m pytest

fuzz: $(STAMPS)/dev
	CHALK_FUZZ_EXAMPLES=$${CHALK_FUZZ_EXAMPLES:-5000} $(BIN)/python -m pytest tests/test_fuzz.py

sanitize: $(STAMPS)/dev
	PYTHON=$(BIN)/python scripts/sanitize_decoder.sh

lint: $(STAMPS)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMPS)/dev $(STAMPS)/engines
	$(BIN)/python -m benchmarks

docs: $(STAMPS)/docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist site

# A stamp is newer than what it was made from; so a second run is quick, and an edited
# pyproject.toml or decoder is installed again.

$(STAMPS)/venv:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1" # the first with --group
	mkdir -p $(STAMPS)
	touch $@

$(STAMPS)/demo: pyproject.toml $(DECODER) $(STAMPS)/venv
	$(BIN)/python -m pip install --quiet --editable ".[demo]"
	touch $@

$(STAMPS)/dev: pyproject.toml $(DECODER) $(STAMPS)/venv
	$(BIN)/python -m pip install --quiet --editable ".[arrow,async,demo,testing]" --group dev
	touch $@

$(STAMPS)/docs: pyproject.toml $(DECODER) $(STAMPS)/venv
	$(BIN)/python -m pip install --quiet --editable . --group docs
	touch $@

$(STAMPS)/engines: scripts/install_engines.py $(STAMPS)/venv
	$(BIN)/python scripts/install_engines.py
	touch $@
