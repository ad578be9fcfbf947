# The door. Every target sets up what it needs; PYTHON names the interpreter, 3.10 or newer.

PYTHON ?= python3
BIN := .venv/bin

PEERS := $(patsubst benchmarks/peers/requirements/%.txt,%,$(wildcard benchmarks/peers/requirements/*.txt)) h2load

.PHONY: help venv demo test chaos peers bench lint proto check-proto test-oldest test-grpcio clean

help: ## say what there is (plain make does, too)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

venv: .venv/.made ## set up .venv with everything that development needs

demo: venv ## serve, train, ask, retrain, swap and kill a real model on real data; then a stream of it
	@$(BIN)/python examples/digits/demo.py
	@$(BIN)/python examples/digits/streams.py

# Most tests wait more than they compute: more of them at a time than there are cores keep a small machine busy.
WORKERS ?= 3

test: venv ## run the tests, several at a time
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

chaos: venv ## run the long tests: kills, soaks, fuzzing
	@$(BIN)/python -m pytest -m chaos

peers: $(PEERS:%=.venv-peers/%/.made) ## build the environments of those that bench compares us with

bench: venv peers ## measure us and what we are compared with, side by side
	@$(BIN)/python -m benchmarks

lint: venv check-proto ## check style, format, types, and that the stubs are current
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

.venv/.made: setup.cfg pyproject.toml
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

# Each peer in versions of its own; one that cannot be had is left out, and bench says so. pytriton's interpreters are
# older than the newest patches of Python, and do not get on with their libraries; with 3.10 they do.

PYTHON_pytriton ?= python3.10

.venv-peers/%/.made: benchmarks/peers/requirements/%.txt
	@echo "setting up $*"
	@rm -rf .venv-peers/$* && mkdir -p .venv-peers
	@{ $(or $(PYTHON_$*),$(PYTHON)) -m venv .venv-peers/$* \
		&& .venv-peers/$*/bin/python -m pip install --quiet --requirement $< && touch $@; } \
		|| { rm -rf .venv-peers/$*; echo "$* cannot be set up here"; }

# The load generator, where the system has none: Debian's, unpacked and not installed.

.venv-peers/h2load/.made:
	@rm -rf .venv-peers/h2load && mkdir -p .venv-peers/h2load
	@command -v h2load > /dev/null || { cd .venv-peers/h2load \
		&& apt-get download --quiet nghttp2-client libev4 libjemalloc2 > apt.log 2>&1 \
		&& for package in *.deb; do dpkg -x $$package .; done; } || echo "h2load cannot be fetched here"
	@touch $@

# The generator lives apart, since it wants older libraries than those that we run on. Each -I maps the folder of a
# contract to the package of its stubs, so that what is generated imports its neighbours by their real names.

STUBS := aipod/rpc/v1/model aipod/rpc/v1/admin aipod/rpc/v1/jobs aipod/rpc/v1/trunk aipod/rpc/v1/health aipod/rpc/v1/reflection aipod/rpc/ai
PROTOC := .venv-proto/bin/python -m grpc_tools.protoc -I aipod/rpc/v1=protos/aipod/v1 -I aipod/rpc=protos

proto: .venv-proto/.made ## generate the stubs from protos/
	@$(PROTOC) --python_out=. --pyi_out=. $(STUBS:=.proto)

check-proto: .venv-proto/.made ## check that the stubs are what proto would make
	@rm -rf build/stubs && mkdir -p build/stubs
	@$(PROTOC) --python_out=build/stubs --pyi_out=build/stubs $(STUBS:=.proto)
	@for stub in $(STUBS:=_pb2.py) $(STUBS:=_pb2.pyi); do \
		cmp --silent build/stubs/$$stub $$stub || { echo "$$stub is stale: run make proto"; exit 1; }; \
	done

.venv-proto/.made: setup.cfg pyproject.toml
	@$(PYTHON) -m venv .venv-proto
	@.venv-proto/bin/python -m pip install --quiet --editable '.[proto]'
	@touch $@

# On a Python that the oldest libraries were built for, 3.10 or 3.11: make test-oldest PYTHON=python3.10

test-oldest: .venv-oldest/.made ## run the tests on the oldest libraries that setup.cfg admits
	@.venv-oldest/bin/python -m pytest

.venv-oldest/.made: setup.cfg pyproject.toml
	@$(PYTHON) -m venv .venv-oldest
	@sed -n '/^install_requires/,/^dev/{s/\[.*\]>/>/;s/>=/==/p;}' setup.cfg > .venv-oldest/constraints.txt
	@.venv-oldest/bin/python -m pip install --quiet --constraint .venv-oldest/constraints.txt --editable '.[test]'
	@touch $@

# The cq front knows grpcio from within: its range of versions, in aipod/rpc/front/choice.py, is what passed here.

GRPCIO := oldest newest
CONSTRAINT_oldest := s/^ *grpcio>=/grpcio==/p

test-grpcio: $(GRPCIO:%=.venv-grpcio-%/.made) ## run the tests of the wire on the oldest grpcio and on the newest
	@for age in $(GRPCIO); do .venv-grpcio-$$age/bin/python -m pytest tests/rpc || exit 1; done

.venv-grpcio-%/.made: setup.cfg pyproject.toml
	@$(PYTHON) -m venv .venv-grpcio-$*
	@sed -n '$(CONSTRAINT_$*)' setup.cfg > .venv-grpcio-$*/constraints.txt
	@.venv-grpcio-$*/bin/python -m pip install --quiet --constraint .venv-grpcio-$*/constraints.txt --editable '.[test]'
	@touch $@

clean: ## remove everything that make and the tools have made
	@rm -rf .venv .venv-proto .venv-oldest .venv-grpcio-* .venv-peers
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find aipod benchmarks examples tests -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
