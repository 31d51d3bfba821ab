# SPDX-License-Identifier: Apache-2.0
# The developer's whole interface. Each target installs what it needs (Debian packages when run as root, Python
# packages into .venv) and may be run again. `make` alone lists them.

VENV := .venv
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip --disable-pip-version-check install -q
PACKAGE := $(VENV)/.package# the package with its extension is installed (editable) as of these sources
TOOLS := $(VENV)/.tools# the tools for tests and lint are installed
JOBS ?= 2

# What the extension is made from, and what makes it be installed again.
SOURCES := pyproject.toml CMakeLists.txt tools/cdef.py $(wildcard csrc/*.[ch] csrc/*/*.[ch])

# The demo's input: empty (a small root file system), "debian" (debootstrap), or the path of a docker-save tar.
IMAGE ?=
PYTEST_ARGS ?=

CMAKE_TESTS = cmake -S . -B $(1) -DPYCOW_TESTS=ON $(2) && cmake --build $(1) -j $(JOBS)
CTEST := ctest --output-on-failure --no-tests=error

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help demo test bench bench-compare lint asan tsan fuzz crash stress clean distclean
.PHONY: prepare-build prepare-test prepare-demo prepare-sanitize prepare-bench prepare-fuzz

help:
	@echo "make demo [IMAGE=debian|FILE.tar]   the main job, step by step, with times"
	@echo "make test                           the C tests and the Python tests"
	@echo "make lint                           ruff, mypy, C warnings as errors, layering"
	@echo "make bench                          benchmarks of pycow alone"
	@echo "make bench-compare                  beside its peers, as root; rewrites the tables of bench/README.md"
	@echo "make asan, make tsan                the tests under the sanitizers"
	@echo "make fuzz [FUZZ_SECONDS=600]        libFuzzer: decoders, damaged stores, operations, archives"
	@echo "make crash                          long: crash images, faults, killed processes (CRASH_WORKLOADS, _IMAGES, KILLS)"
	@echo "make stress                         long: threads (STRESS_SECONDS), once more under the thread sanitizer"
	@echo "make clean, make distclean          removes what was built; distclean .venv too"

# ---- What the targets need -------------------------------------------------------------------------

prepare-build:
	@tools/prepare.sh build
prepare-test: # clang is large: only CI must have it
	@tools/prepare.sh build test $(if $(filter true,$(CI)),fuzz)
prepare-fuzz:
	@tools/prepare.sh build fuzz
prepare-demo:
	@tools/prepare.sh build demo $(if $(filter debian,$(IMAGE)),debian)
prepare-bench:
	@tools/prepare.sh build test bench
prepare-sanitize:
	@tools/prepare.sh build test sanitize

$(PACKAGE): $(SOURCES) | prepare-build
	$(PIP) "scikit-build-core>=1.0" "cffi>=2.1"
	$(PIP) --no-build-isolation --editable .
	@touch $@

$(TOOLS): pyproject.toml $(PACKAGE)
	$(PIP) --no-build-isolation --editable ".[dev]"
	@touch $@

# ---- Targets ---------------------------------------------------------------------------------------

demo: prepare-demo $(PACKAGE)
	$(PYTHON) demo/run.py $(if $(IMAGE),--image "$(IMAGE)")

test: prepare-test $(TOOLS)
	$(call CMAKE_TESTS,build/c,)
	$(CTEST) --test-dir build/c
	$(PYTHON) tests/fuzz/run.py --seconds 10
	$(PYTHON) -m pytest $(PYTEST_ARGS)

bench: prepare-test $(TOOLS)
	$(PYTHON) -m pytest bench $(PYTEST_ARGS)

# Options of bench/compare/run.py; "--small --root synthetic" takes about two minutes, all of it about ten.
COMPARE ?=
bench-compare: prepare-bench $(TOOLS)
	$(PIP) --no-build-isolation --editable ".[bench]"
	$(call CMAKE_TESTS,build/c,)
	$(PYTHON) bench/compare/run.py --update bench/README.md --json build/bench.json $(COMPARE)

FUZZ_SECONDS ?= 600# for each target
fuzz: prepare-fuzz
	JOBS=$(JOBS) python3 tests/fuzz/run.py --seconds $(FUZZ_SECONDS)

lint: prepare-build $(TOOLS)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(PYTHON) tools/layering.py
	$(call CMAKE_TESTS,build/lint,-DPYCOW_WERROR=ON)

# A sanitized extension lives in an environment of its own, which borrows the packages of .venv but not its editable
# install; the tests run from another folder, so that the source folder is not imported by mistake. $(1) is the folder
# below build, $(2) the runtime library, $(3) the options of the sanitizer, $(4) a prefix of the commands.
define SANITIZED
	$(call CMAKE_TESTS,build/$(1)/c,-DPYCOW_SANITIZE=$(2))
	$(subst detect_leaks=0,detect_leaks=1,$(3)) $(4) $(CTEST) --test-dir build/$(1)/c
	$(PYTHON) -m venv --without-pip build/$(1)/venv
	cd $(VENV)/lib/python3*/site-packages && pwd > "$(CURDIR)/build/$(1)/borrow.pth"
	cp build/$(1)/borrow.pth "$$(echo build/$(1)/venv/lib/python3*/site-packages)"
	build/$(1)/venv/bin/python -m pip --disable-pip-version-check install -q --no-build-isolation --no-deps \
	    --force-reinstall -C build-dir=build/$(1)/ext -C cmake.define.PYCOW_SANITIZE=$(2) .
	cd build/$(1) && $(3) PYTHONMALLOC=malloc LD_PRELOAD="$$(gcc -print-file-name=lib$(1).so)" $(4) \
	    venv/bin/python -P -m pytest -c ../../pyproject.toml --rootdir ../.. -p no:cacheprovider -m "not slow" \
	    $(PYTEST_ARGS) ../../tests/python
endef

asan: prepare-sanitize $(TOOLS)
	$(call SANITIZED,asan,address,ASAN_OPTIONS=detect_leaks=$(LEAKS):abort_on_error=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1,)
asan: LEAKS = 0

# The thread sanitizer needs addresses where it expects them: without randomisation.
tsan: prepare-sanitize $(TOOLS)
	$(call SANITIZED,tsan,thread,TSAN_OPTIONS="halt_on_error=1:second_deadlock_stack=1:suppressions=$(CURDIR)/tools/tsan.supp",setarch -R)

# Hours of looking for what CI has no time for; docs/TESTING.md says how a failure is replayed.
CRASH_WORKLOADS ?= 20
CRASH_IMAGES ?= 12
CRASH_FIRST ?= 1
FAULT_SEEDS ?= 10
KILLS ?= 300
STRESS_SECONDS ?= 3600

crash: prepare-test $(TOOLS)
	$(call CMAKE_TESTS,build/c,)
	build/c/tests/c/test_crash $(CRASH_WORKLOADS) $(CRASH_IMAGES) $(CRASH_FIRST)
	build/c/tests/c/test_faults $(FAULT_SEEDS)
	PYCOW_KILLS=$(KILLS) $(PYTHON) -m pytest tests/python/test_kill.py

stress: prepare-sanitize
	$(call CMAKE_TESTS,build/c,)
	$(call CMAKE_TESTS,build/tsan/c,-DPYCOW_SANITIZE=thread)
	build/c/tests/c/test_threads $(STRESS_SECONDS)
	TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 setarch -R build/tsan/c/tests/c/test_threads $(STRESS_SECONDS)

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f $(PACKAGE) $(TOOLS)
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
