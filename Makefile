# `make bench` and `make test` need python3 >= 3.11 and a Python package index, nothing else.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
export OMP_NUM_THREADS ?= 1

.PHONY: bench test benchmarks clean

bench: $(READY)
	$(VENV)/bin/python -m bench run --methods ecc,netadapt,amc,dense,uniform,uniform-gradual --device 1080ti --protocol quick
	@echo "One seed ranks nothing. The ranking, with intervals: reports/mobilenet-fashion-mnist-1080ti-simulated-standard.md"

test: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m bench report --check
	$(VENV)/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --benchmark-disable

benchmarks: $(READY)
	$(VENV)/bin/python -m pytest tests/benchmarks --benchmark-only

# The environment is made once; a change of pyproject.toml makes it anew in place.
$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "expected python3 >= 3.11, got " + sys.version.split()[0] + "; try make PYTHON=python3.12 bench")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
