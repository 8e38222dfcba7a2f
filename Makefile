PYTHON ?= venv/bin/python
TEST = OMP_NUM_THREADS=1 $(PYTHON) -m pytest

.PHONY: check test run bench fix

# The packages whose tests take seconds; `make test` runs them all.
QUICK = core plugin host imaging launcher prompts app

check:  ## style, types, architecture and the quick tests
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	$(TEST) -q tests/test_architecture.py
	$(TEST) -q -n 2 -m "not slow and not browser and not gpu" $(QUICK:%=tests/%)

test:  ## everything, browser tests included
	$(PYTHON) webui.py test

run:
	$(PYTHON) webui.py

bench:
	$(PYTHON) -m benchmarks

fix:  ## what ruff can mend by itself
	$(PYTHON) -m ruff check --fix .
