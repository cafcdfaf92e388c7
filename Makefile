# make demo: the whole pipeline, small, without a download. make test: every test. make check: what CI runs.
# make fuzz: mutated files for every reader, FUZZ_CASES of each. make soak: a million of them, KILLS of every command, a
# day of a camera as fast as it goes, and MINUTES (60) of a real one with files written and the page watched.
# make audit: advisories for the versions in constraints.txt; AUDIT=--offline-ok where there may be no network.
# make ablation: what each part of the model is worth, hours on two cores; TRACK_DATA names the data.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check fuzz soak audit ablation
demo: .venv/installed
	$(BIN)/python scripts/quickstart.py

test: .venv/tested
	$(BIN)/pytest -q

ablation: .venv/installed
	$(BIN)/python scripts/ablation.py

check: .venv/tested
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q

fuzz: .venv/tested
	FUZZ_CASES=$${FUZZ_CASES:-20000} $(BIN)/pytest -q tests/test_fuzz.py

soak: .venv/tested
	FUZZ_CASES=$${FUZZ_CASES:-50000} $(BIN)/pytest -q tests/test_fuzz.py
	KILLS=$${KILLS:-20} $(BIN)/pytest -q -s tests/app/test_kills.py
	$(BIN)/python scripts/soak.py
	$(BIN)/python -m scripts.soak_live $(MINUTES)

audit: .audit/installed
	.audit/bin/python scripts/audit.py $(AUDIT)

.audit/installed:
	$(PYTHON) -m venv .audit
	.audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	touch $@

define install
if command -v uv >/dev/null; then \
	uv pip install --quiet --python $(BIN)/python -c constraints.txt -e $(1); \
else \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e $(1); \
fi
endef

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12")'
	if command -v uv >/dev/null; then uv venv --quiet --python $(PYTHON) --allow-existing .venv; else $(PYTHON) -m venv .venv; fi
	$(call install,.)
	touch $@

.venv/tested: .venv/installed
	$(call install,'.[dev]')
	touch $@
