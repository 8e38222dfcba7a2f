PYTHON ?= venv/bin/python
TEST = OMP_NUM_THREADS=1 $(PYTHON) -m pytest

.PHONY: check test run bench fix

check:  ## style, types, architecture and the fast tests
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	$(TEST) -q tests/test_architecture.py
	$(TEST) -q -n 2 -m "not slow and not browser and not gpu" --ignore=tests/test_architecture.py

test:  ## everything, browser tests included
	$(PYTHON) webui.py test

run:
	$(PYTHON) webui.py

bench:
	$(PYTHON) -m benchmarks

fix:  ## what ruff can mend by itself
	$(PYTHON) -m ruff check --fix .
