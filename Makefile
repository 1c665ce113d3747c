# Every target stands alone on a machine with make and Python 3.11 or newer: it makes .venv on first use and
# installs again only when pyproject.toml, constraints.txt or the version changed.

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench campaign docs clean
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python
INSTALL_INPUTS := pyproject.toml constraints.txt analyzer/fencepost_analyzer/version.py

# pip reads the second of these (from 25.3) or the first (before) for what builds the package itself; both are
# relative because pip splits them at blanks.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# A name on PATH proves nothing (a version manager's shim exists for versions that are switched off, a
# distribution ships Python without venv), so a candidate counts only if it runs and can make an environment.
USABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))

help:
	@echo 'make demo      the whole story in a minute: a crash, the proof, the healing policy'
	@echo 'make test      ruff, mypy and every test but the long campaigns'
	@echo 'make lint      ruff and mypy alone'
	@echo 'make bench     measure speed and print the numbers'
	@echo 'make campaign  the long campaigns: thousands of kills, large recordings'
	@echo 'make docs      write the reference pages again from the code'
	@echo 'make clean     remove everything that make and the tools made'

demo: $(VENV)/bare.stamp
	$(VENV)/bin/fencepost demo

lint: $(VENV)/test.stamp
	$(PY) -m ruff check .
	$(PY) -m mypy

# Two at once, a file to each: most tests wait for processes, and every fixture of a file is made once. A worker that
# dies is not started again: xdist would wait for ever for the tests that it had been given.
test: lint
	$(PY) -m pytest -n 2 --dist loadfile --max-worker-restart 0

bench: $(VENV)/test.stamp
	$(PY) tests/benchmarks

campaign: $(VENV)/test.stamp
	$(PY) -m pytest -m campaign

docs: $(VENV)/bare.stamp
	$(PY) -m fencepost_analyzer.docs

clean:
	rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find analyzer recorder runtime tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bare.stamp: $(INSTALL_INPUTS)
	@$(call ensure_venv)
	$(PY) -m pip install --quiet -c constraints.txt -e .
	@touch $@

# The test environment holds the bare one, so that demo after test installs nothing.
$(VENV)/test.stamp: $(INSTALL_INPUTS)
	@$(call ensure_venv)
	$(PY) -m pip install --quiet -c constraints.txt -e '.[test]'
	@touch $(VENV)/bare.stamp $@

define ensure_venv
if $(PY) -c '$(USABLE)' 2>/dev/null && $(PY) -m pip --version >/dev/null 2>&1; then exit 0; fi; \
for candidate in $(PYTHON) python3.13 python3.12 python3.11 python3 python; do \
	if "$$candidate" -c '$(USABLE)' 2>/dev/null; then \
		echo "making $(VENV) with $$("$$candidate" --version)"; \
		exec "$$candidate" -m venv --clear $(VENV); \
	fi; \
done; \
echo 'fencepost needs Python 3.11 or newer with its venv module: install one, or name it: make PYTHON=/path/to/python3.12' >&2; \
exit 1
endef
