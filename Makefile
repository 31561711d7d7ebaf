# Every target does its own set-up: only Python 3.11 or newer and make must be there.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# Tests run on every core already: threads of libraries would only be in their way. Compiled modules are kept for the
# processes that tests start.
TESTS := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 TOKIO_WORKER_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "not stress"
unexport PYTHONDONTWRITEBYTECODE
.DEFAULT_GOAL := help
.PHONY: help setup demo test check audit wheel stress bench lock clean

help:      ## list the targets
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/: [^#]*## /\t/' | expand -t 10

setup: $(READY)  ## make .venv with the pinned dependencies

# Locked by hash, so a changed package stops here; imagelake itself is installed editable, without resolving again.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"imagelake needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}. Try: make PYTHON=python3.11")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

# Not in the lock: which build fits depends on the machine. Without torch its tests are skipped, and say so.
.venv/.torch: $(READY)
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 torchdata==0.11.0
	@touch .venv/.torch

demo: $(READY)   ## the whole flow on generated glyphs, into data/demo
	$(BIN)/imagelake demo data/demo

test: $(READY)   ## the tests, without the slow ones
	$(TESTS)

check: $(READY) .venv/.torch  ## what CI runs: lint, types, import rule, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(TESTS)

# Beside the environment, not in it: what it needs is no business of imagelake's.
.venv/audit/.ready: .ci/audit.lock $(READY)
	$(BIN)/python -m venv --clear .venv/audit
	.venv/audit/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .ci/audit.lock
	@touch .venv/audit/.ready

audit: .venv/audit/.ready  ## known vulnerabilities of pinned packages, by pip-audit
	.venv/audit/bin/python .ci/audit.py .venv/audit/bin/pip-audit

wheel: $(READY)  ## build the wheel and try it in a new environment, without the lock
	$(BIN)/python .ci/try_wheel.py

stress: $(READY) .venv/.torch  ## slow tests, with counts: kills, faults, many writers, hostile and damaged inputs
	$(BIN)/pytest -m stress -s

bench: $(READY) .venv/.torch  ## the README's figures, each beside a named alternative
	$(BIN)/python benchmarks/flow.py
	$(BIN)/python benchmarks/ingest.py
	$(BIN)/python benchmarks/dedup.py
	$(BIN)/python benchmarks/feed.py
	$(BIN)/python benchmarks/models.py
	$(BIN)/python benchmarks/engines.py
	$(BIN)/python benchmarks/verify.py
	$(BIN)/python benchmarks/scale.py --sizes 500000

lock: $(READY)   ## resolve pyproject.toml again into requirements.lock
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --generate-hashes --universal --python-version 3.11 --no-emit-index-url --no-header --upgrade -q -o requirements.lock

clean:     ## remove the environment and the demo lake
	rm -rf .venv data/demo
