# The front door: every target installs what it needs, configures preset `release` and works in build/release.
#   make demo    install, probe, plan and train the example on two CPU devices, estimate beside measured
#   make test    install, build and run every test that is not slow
# Nothing else needs `make web`; after it, `make build` puts the page into `launch`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SUFFIXES:

BUILD := build/release
EXAMPLE := build/example
PYTHON := .venv/bin/python
PREFIX ?= /usr/local
DESTDIR ?=
# Process tests watch deadlines: on few cores they run one after another.
TEST_JOBS ?= 1
# A file that sees libtorch takes 1.5 GB to compile: no more jobs than memory carries.
JOBS ?= $(shell awk -v cores="$$(nproc)" '/^MemAvailable:/ { fit = int($$2 / 1572864) } \
          END { if (fit > cores) fit = cores; if (fit < 1) fit = 1; print fit }' /proc/meminfo)
# The demo's length; empty: as examples/gpt/job.yaml says.
COX_DEMO_STEPS ?=
DEVICES ?= 2xcpu
# A call of `make soak` ends by itself after about so long, half for each of its parts; the next one goes on.
SOAK_SECONDS ?= 1800
SOAK_PARTS ?= build/soak
# Of each fuzzer.
FUZZ_SECONDS ?= 60

SOURCES = $$(git ls-files -co --exclude-standard '*.cpp' '*.h')
CTEST := ctest --test-dir $(BUILD) --output-on-failure --no-tests=error -j$(TEST_JOBS)

.PHONY: help build demo test test-all bench soak fuzz web web-test web-bench lint format golden example install clean deps-build deps-test deps-lint deps-bench

help:
	@echo "make demo       install, probe, plan and train the example on $(DEVICES)  (COX_DEMO_STEPS=20: a short one)"
	@echo "make test       install, build, run every test that is not slow"
	@echo "make test-all   the slow ones too"
	@echo "make build      install, configure preset release, build            -> $(BUILD)/bin"
	@echo "make example    the example's model and text                        -> $(EXAMPLE)"
	@echo "make bench      every program of bench/ beside its peer              -> build/bench  (QUICK=1: shorter)"
	@echo "make soak       1,000 faults, then 60 rare ones, in parts       -> $(SOAK_PARTS)  (SOAK_SECONDS=600: a shorter part; root)"
	@echo "make fuzz       what reads bytes from outside, each for FUZZ_SECONDS=60  -> build/fuzz/corpus"
	@echo "make web        the plan explorer, into launch                      -> web/dist, $(BUILD)/bin/launch"
	@echo "make web-test   the visit in headless Chromium                      -> web/test-results"
	@echo "make web-bench  how soon the page is there and drawn anew           -> build/bench/page_times.json"
	@echo "make lint format golden      check style, rewrite style, rewrite recorded expectations"
	@echo "make install PREFIX=/usr/local"

deps-build:
	@sh deps/install.sh build

deps-test:
	@sh deps/install.sh build test

deps-bench:
	@sh deps/install.sh bench

deps-lint:
	@sh deps/install.sh build lint

$(BUILD)/build.ninja: | deps-build
	cmake --preset release

build: deps-build $(BUILD)/build.ninja
	cmake --build --preset release --parallel $(JOBS)

$(EXAMPLE)/gpt.pt2: $(wildcard examples/gpt/*.py python/coxswain/*.py) | deps-build
	mkdir -p $(EXAMPLE)
	$(PYTHON) examples/gpt/export.py --out $@

$(EXAMPLE)/kjv.txt: examples/gpt/text.sh | deps-build
	mkdir -p $(EXAMPLE)
	sh examples/gpt/text.sh $@

$(EXAMPLE)/job.yaml: examples/gpt/job.yaml
	mkdir -p $(EXAMPLE)
	cp $< $@

example: $(EXAMPLE)/gpt.pt2 $(EXAMPLE)/kjv.txt $(EXAMPLE)/job.yaml

demo: build example
ifeq ($(COX_DEMO_STEPS),)
	$(BUILD)/bin/launch train $(EXAMPLE)/job.yaml --devices $(DEVICES)
else
	$(PYTHON) tests/demo/short_job.py $(EXAMPLE)/job.yaml --steps $(COX_DEMO_STEPS) --out $(EXAMPLE)/job-short.yaml
	$(BUILD)/bin/launch train $(EXAMPLE)/job-short.yaml --devices $(DEVICES)
endif

test: deps-test build example
	$(CTEST) --label-exclude '^slow$$'

test-all: deps-test build example
	$(CTEST)

# Every program runs, whatever another one finds; the target fails when one failed. `contests` and `cost_accuracy` need a directory, `soak` hours.
bench: deps-test deps-bench build example
	mkdir -p build/bench
	failed=; \
	for source in bench/*.cpp; do \
	  name=$$(basename "$$source" .cpp); \
	  [ -x "$(BUILD)/bin/$$name" ] && [ "$$name" != contests ] && [ "$$name" != cost_accuracy ] && [ "$$name" != soak ] || continue; \
	  echo "== $$name"; \
	  "$(BUILD)/bin/$$name" --json "build/bench/$$name.json" $(if $(QUICK),--quick) || failed="$$failed $$name"; \
	done; \
	if [ -n "$$failed" ]; then echo "bench: checks failed in:$$failed" >&2; exit 1; fi

# Says what remains; root, for nodes in namespaces of their own.
soak: deps-test build
	mkdir -p $(SOAK_PARTS)
	failed=; \
	"$(BUILD)/bin/soak" --parts $(SOAK_PARTS) --faults 1000 --every 5 --seconds $$(($(SOAK_SECONDS) / 2)) || failed=1; \
	"$(BUILD)/bin/soak" --parts $(SOAK_PARTS) --faults 60 --every 30 --seconds $$(($(SOAK_SECONDS) / 2)) || failed=1; \
	if [ -n "$$failed" ]; then echo "soak: checks failed" >&2; exit 1; fi

# What was found to be new stays in build/fuzz/corpus, so that the next call goes on; an input that fails is left beside it.
fuzz: deps-test
	sh deps/install.sh build fuzz
	cmake --preset fuzz
	cmake --build --preset fuzz --parallel $(JOBS)
	COX_BINARY_DIR=$(CURDIR)/build/fuzz $(PYTHON) tests/model/make_fixtures.py build/fuzz/fixtures
	$(PYTHON) fuzz/seeds.py build/fuzz/fixtures build/fuzz/corpus
	for source in fuzz/fuzz_*.cpp; do \
	  name=$$(basename "$$source" .cpp); mkdir -p build/fuzz/corpus/$$name; \
	  echo "== $$name"; \
	  build/fuzz/bin/$$name -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=4096 -timeout=20 -max_len=1048576 -print_final_stats=1 \
	    -artifact_prefix=build/fuzz/$$name- build/fuzz/corpus/$$name 2>&1 | grep -v -E '^#' || exit 1; \
	done

# Any Node.js of 20 or later; without one, Debian's, which is of 18 and builds the page, but does not run web-test.
web/node_modules/installed: web/package-lock.json
	command -v npm >/dev/null || sh deps/install.sh web
	cd web && npm ci --no-audit --no-fund
	touch $@

web: web/node_modules/installed
	cd web && npm run build
	$(MAKE) build

web-test: web
	[ -n "$${COX_CHROMIUM:-}" ] || sh deps/install.sh web-test
	cd web && npm test

web-bench: web
	[ -n "$${COX_CHROMIUM:-}" ] || sh deps/install.sh web-test
	mkdir -p build/bench
	cd web && COX_BENCH_JSON=$(CURDIR)/build/bench/page_times.json $(if $(QUICK),COX_BENCH_QUICK=1) npm run bench

lint: deps-lint $(BUILD)/build.ninja
	/usr/bin/python3 tests/tidy/tidy.py --outliers
	clang-format-19 --dry-run --Werror $(SOURCES)
	cmake --build --preset release --parallel $(JOBS) --target proto
	git ls-files -co --exclude-standard '*.cpp' ':!fuzz' | xargs -n 1 -P $(JOBS) clang-tidy-19 -p $(BUILD) --quiet

format: deps-lint
	clang-format-19 -i $(SOURCES)

golden: deps-test build example
	COX_UPDATE_GOLDEN=1 $(CTEST) --label-regex '^golden$$'
	git status --short -- tests

# `worker` is started by `launch` only. It finds libtorch in this checkout's .venv by its run path.
install: build
	install -D -m 755 $(BUILD)/bin/launch $(DESTDIR)$(PREFIX)/bin/launch
	ln -sf launch $(DESTDIR)$(PREFIX)/bin/coxswain
	install -D -m 755 $(BUILD)/bin/worker $(DESTDIR)$(PREFIX)/libexec/coxswain/worker
	for plugin in $$(find $(BUILD)/bin -name 'coxswain_*.so' -type f); do \
	  install -D -m 755 "$$plugin" "$(DESTDIR)$(PREFIX)/libexec/coxswain/$$(basename "$$plugin")"; \
	done

clean:
	rm -rf build
