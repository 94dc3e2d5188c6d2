# What people run. Each target can be repeated: it does only what is missing, and says what it installs.
#
#   make dev     build and run a demo node with its playground
#   make test    install what the tests need, then lints, licences and every test
#   make simulate  a whole node with made-up network, disk and clocks, under SEEDS=10000 seeds
#   make bench   micro-benchmarks; bench-peers, bench-growth, bench-tokens, bench-instructions: see bench/README.md
#   make autobahn, make fuzz, make figures: conformance, fuzzing, the figures of docs/reliability.md
#   make crash   kill -9, loss of power, failing disks: KILLS=200 CUTS=50 SEED=…; what it measures is in docs/reliability.md
#   make lint    formatting, clippy, licences of the dependencies

SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: dev build playground test test-rust test-js test-python test-bench test-deps autobahn fuzz figures lint bench clean

CARGO ?= cargo
ARGS ?=
PLAYGROUND := src/playground/dist/index.html
PAGES := src/dashboard/web/dist/complete
BINARY := $(or $(CARGO_TARGET_DIR),target)/release/wiresocket

# --- running ---------------------------------------------------------------------------------------------------

dev: build
	@exec $(BINARY) dev $(ARGS)

build: npm-if-possible
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(PLAYGROUND) $(PAGES) >&2; fi
	@echo "$(CARGO) build --release --bin wiresocket" >&2
	@$(CARGO) build --release --bin wiresocket >&2

# npm bundles the playground and what the dashboard's pages load. Without it everything builds and runs: the playground
# says that it is missing, and the pages load their sources as they are.
.PHONY: npm-if-possible
npm-if-possible:
	@command -v npm >/dev/null || tuning/install-packages nodejs npm >&2 || \
	  echo "npm is missing and can't be installed here (apt-get install nodejs npm): going on without the playground" >&2

playground: $(PLAYGROUND)

$(PLAYGROUND): $(wildcard src/playground/web/*) src/playground/package-lock.json src/playground/build.mjs
	@echo "installing the playground's npm packages and bundling it" >&2
	@cd src/playground && (npm ci --no-audit --no-fund && npm run build) >&2

$(PAGES): $(wildcard src/dashboard/web/assets/*) src/dashboard/web/package-lock.json src/dashboard/web/build.mjs
	@echo "installing esbuild from npm and bundling what the dashboard's pages load" >&2
	@cd src/dashboard/web && (npm ci --no-audit --no-fund && npm run build) >&2

# --- testing ---------------------------------------------------------------------------------------------------

NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)
export WIRESOCKET_TRACES ?= $(wildcard $(CURDIR)/../shared/traces)

test: test-deps lint test-bench test-rust test-js test-python autobahn

# Chromium, npm, Python and PostgreSQL from Debian (the tests start a PostgreSQL of their own, in a temporary directory);
# Authlib, PyJWT and an OpenAPI validator from PyPI, into tests/python/.venv. cargo-deny is optional, because building it takes longer than our tests.
test-deps:
	@tuning/install-packages npm:npm node:nodejs chromium:chromium python3:python3 pg_ctlcluster:postgresql openssl:openssl
	@python3 -c 'import ensurepip, venv' 2>/dev/null || tuning/install-packages python3-venv
	@$(MAKE) --silent --no-print-directory $(PYTHON_INSTALLED) $(KOSOKU)

PYTHON_INSTALLED := tests/python/.venv/installed

$(PYTHON_INSTALLED): tests/python/requirements.txt
	@echo "installing Python packages into tests/python/.venv: $$(grep -v '^#' $< | paste -sd ' ')"
	@python3 -m venv tests/python/.venv tests/autobahn/.venv
	@tests/python/.venv/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

test-rust: $(PLAYGROUND) $(PAGES)
ifeq ($(NEXTEST),yes)
	$(CARGO) nextest run --workspace --no-fail-fast
	$(CARGO) test --workspace --doc
else
	$(CARGO) test --workspace --no-fail-fast
endif

test-js: $(PLAYGROUND) $(PAGES)
	$(CARGO) build --bin wiresocket
	cd src/playground && npm test
	cd tests/js && npm ci --no-audit --no-fund && npm test

test-python: $(PYTHON_INSTALLED)
	$(CARGO) build --bin wiresocket
	cd tests/python && .venv/bin/python -m unittest

# The simulator (src/engine/simulation), of which `make test` runs a slice. A failure says which seed, and
# `make simulate SEED=…` repeats it. THREADS=2
.PHONY: simulate
SEEDS ?= 10000
THREADS ?= $(shell nproc)
simulate:
	WIRESOCKET_SEEDS=$(SEEDS) $(if $(SEED),WIRESOCKET_SEED=$(SEED)) WIRESOCKET_THREADS=$(THREADS) \
	  $(CARGO) test -p wiresocket --lib engine::simulation -- --nocapture

# The table of bench-peers, from runs that are made up: nothing is measured.
test-bench:
	@python3 -m unittest discover -q -s bench/peers/tests -t .

# WebSocket conformance, against an echo server on our framing code: all cases but the long ones (CASES='9.*' for those).
# kosoku is Autobahn's cases in a Python package, from PyPI, into tests/autobahn/.venv.
KOSOKU := tests/autobahn/.venv/bin/kosoku
ECHO := $(or $(CARGO_TARGET_DIR),target)/debug/examples/autobahn-echo

$(KOSOKU): tests/autobahn/requirements.txt
	@echo "installing Python packages into tests/autobahn/.venv: $$(grep -v '^#' $< | paste -sd ' ')"
	@python3 -m venv tests/autobahn/.venv
	@tests/autobahn/.venv/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

autobahn: $(KOSOKU)
	$(CARGO) build --example autobahn-echo
	tests/autobahn/run.py $(ECHO) $(KOSOKU) $(CASES)

# Needs a nightly Rust and says so; builds cargo-fuzz if it is missing. SECONDS=60 for each of TARGETS='document sync'.
fuzz:
	@tests/fuzz/run $(or $(SECONDS),60) $(TARGETS)

# What docs/reliability.md says of one node, measured again. One test at a time: they measure. Line by line: whoever waits sees
# how far it is.
figures:
	@set -o pipefail; { $(CARGO) test -p wiresocket --test reliability --test corpus -- --test-threads=1 --nocapture && \
	  $(CARGO) test -p wiresocket --test dashboard -- --test-threads=1 --nocapture sqlite::brute_force sqlite::refresh::of_many; } | \
	  grep --line-buffered -oE 'figure: .*|[a-z]+: [0-9]+ inputs.*|.*(FAILED|panicked).*'

# What was acknowledged before a crash is there after it: `make test` has a slice. Loss of power and failing disks are mounted,
# which needs root and loop devices; without, they say that nothing was tested. SEED=… replays a schedule.
.PHONY: crash
KILLS ?= 200
CUTS ?= 50
SEED ?=

crash:
	@tuning/install-packages npm:npm node:nodejs
	@[ "$$(id -u)" -ne 0 ] || tuning/install-packages mkfs.ext4:e2fsprogs mount:mount
	CRASH_KILLS=$(KILLS) CRASH_CUTS=$(CUTS) CRASH_SEED=$(SEED) $(CARGO) test -p wiresocket --test crash -- --nocapture --test-threads 1
	$(CARGO) build --bin wiresocket
	cd tests/js && npm ci --no-audit --no-fund && CRASH_PROVIDER_KILLS=$(KILLS) CRASH_SEED=$(SEED) node --test test/crash.test.mjs

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) check --quiet --manifest-path tests/fuzz/Cargo.toml --target-dir $(or $(CARGO_TARGET_DIR),target)/fuzz-check
	tests/licences

# --- measuring: bench/README.md ----------------------------------------------------------------------------------

.PHONY: bench-peers bench-peers-arguments bench-peers-report bench-peers-install bench-growth bench-tokens bench-programs bench-instructions

bench:
	$(CARGO) bench -p wiresocket-bench

# WIRESOCKET= and LOADTEST= name other binaries than those of this tree: then nothing is built.
bench-programs:
	@tuning/install-packages python3:python3
ifeq ($(and $(WIRESOCKET),$(LOADTEST)),)
	$(CARGO) build --release -p wiresocket -p wiresocket-loadtest --bin wiresocket --bin wiresocket-loadtest
endif

bench-peers-install:
	@tuning/install-packages npm:npm node:nodejs g++:g++
	@bench/peers/install.sh

# ROUNDS=3 SCENARIOS=A,B-ramp PEERS=wiresocket,y-sweet
bench-peers: bench-peers-arguments bench-programs bench-peers-install
	@python3 -m bench.peers.run

# Before minutes are spent on building.
bench-peers-arguments:
	@tuning/install-packages python3:python3
	@python3 -m bench.peers.run check

# The table and the page again, from the newest whole comparison or from RUNS=20261122-055119.
bench-peers-report:
	@python3 -m bench.peers.run again

# ROUNDS=3 CURVES=history,shards POINTS_MAX=1000
bench-growth: bench-programs
	@python3 -m bench.growth.run

# CLIENTS=1,16,64 SECONDS_EACH=10 DATABASES=sqlite,postgresql
bench-tokens: bench-programs
	@tuning/install-packages curl:curl
	@python3 -m bench.tokens.run

# PATHS='turn|apply' BASE=the JSON of another commit
bench-instructions:
	@command -v valgrind >/dev/null || { echo "needs valgrind: apt-get install valgrind" >&2; exit 1; }
	$(CARGO) build --release -p wiresocket-bench --bin instructions
	@python3 -m bench.instructions

clean:
	$(CARGO) clean
	rm -rf src/playground/dist src/playground/node_modules src/dashboard/web/dist src/dashboard/web/node_modules tests/js/node_modules tests/js/artifacts tests/python/.venv tests/autobahn/.venv
