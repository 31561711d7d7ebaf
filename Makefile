# Every target does its own set-up. It needs Python 3.11 or newer and make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# Tests run on every core already: threads of libraries would only be in their way. Compiled modules are kept for the
# processes that tests start.
# Small lakes are made and deleted ten times faster in memory, where 4 GB are free.
IN_MEMORY := $(shell [ "$$(df -k --output=avail /dev/shm 2>/dev/null | tail -1)" -gt 4000000 ] 2>/dev/null && echo PYTEST_DEBUG_TEMPROOT=/dev/shm)
# A test that hangs ends its worker after 15 minutes, with the stack of every thread, and fails.
TESTS := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 TOKIO_WORKER_THREADS=1 $(IN_MEMORY) $(BIN)/pytest -n 2 \
	-o faulthandler_timeout=900 -o faulthandler_exit_on_timeout=true
FAST := not slow and not stress and not ray and not bucket
unexport PYTHONDONTWRITEBYTECODE
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-servers check docs tutorial audit wheel stress bench lock clean

help:      ## list the targets
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/: [^#]*## /\t/' | expand -t 16

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

test: $(READY)   ## the tests, without slow ones and those that need a Ray cluster or an S3 server
	$(TESTS) --dist worksteal -m "$(FAST)"

test-slow: $(READY)  ## the slow tests: many whole lakes that are damaged, killed or grown, also with servers
	$(TESTS) --dist loadgroup -m "slow and not stress"

# The tests of one Ray cluster are one group, so that it starts once. They wait for servers, so three run at once.
test-servers: $(READY)  ## the tests that start a Ray cluster or an S3 server
	$(TESTS) -n 3 --dist loadgroup -m "not slow and not stress and (ray or bucket)"

check: $(READY) .venv/.torch  ## lint, types, import rule, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(TESTS) --dist worksteal -m "$(FAST)"

# Sphinx has an environment of its own, so that the tests do not install it. It reads imagelake and its dependencies from
# .venv; both locks have the same version of every package that is in both.
.venv/docs/.ready: .ci/docs.lock $(READY)
	$(BIN)/python -m venv --clear --without-pip .venv/docs
	$(BIN)/python -m pip --python .venv/docs/bin/python install --quiet --disable-pip-version-check --require-hashes -r .ci/docs.lock
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$$(.venv/docs/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/imagelake.pth"
	@touch .venv/docs/.ready

tutorial: .venv/docs/.ready  ## run every command of docs/tutorial/start.md, and docs/tutorial/notmnist.ipynb
	$(BIN)/python docs/run_tutorial.py
	.venv/docs/bin/python docs/run_notebook.py

docs: .venv/docs/.ready  ## the documentation, into site/; a warning is an error
	PYTHONPATH=. .venv/docs/bin/sphinx-build --jobs 2 --quiet --fail-on-warning --keep-going --fresh-env docs site
	@echo "open site/index.html"

# pip-audit has an environment of its own: imagelake does not need its dependencies.
.venv/audit/.ready: .ci/audit.lock $(READY)
	$(BIN)/python -m venv --clear .venv/audit
	.venv/audit/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .ci/audit.lock
	@touch .venv/audit/.ready

audit: .venv/audit/.ready  ## known vulnerabilities of pinned packages, by pip-audit
	.venv/audit/bin/python .ci/audit.py .venv/audit/bin/pip-audit

wheel: $(READY)  ## build the wheel and try it in a new environment, without the lock
	$(BIN)/python .ci/try_wheel.py

stress: $(READY) .venv/.torch  ## slow tests, with counts: kills, faults, many writers, hostile and damaged inputs; laws with more examples
	$(BIN)/pytest -m stress -s
	$(TESTS) --dist worksteal -m "hypothesis and not stress and not ray and not bucket" --hypothesis-profile thorough

bench: $(READY) .venv/.torch  ## the README's figures, each beside a named alternative
	$(BIN)/python benchmarks/flow.py
	$(BIN)/python benchmarks/ingest.py
	$(BIN)/python benchmarks/dedup.py
	$(BIN)/python benchmarks/feed.py
	$(BIN)/python benchmarks/models.py
	$(BIN)/python benchmarks/engines.py
	$(BIN)/python benchmarks/verify.py
	$(BIN)/python benchmarks/scale.py --sizes 500000

lock: $(READY)   ## resolve pyproject.toml again into the locks
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --generate-hashes --universal --python-version 3.11 --no-emit-index-url --no-header --upgrade -q -o requirements.lock
	$(BIN)/uv pip compile --group docs --constraint requirements.lock --generate-hashes --universal --python-version 3.11 --no-emit-index-url --no-header --upgrade -q -o .ci/docs.lock

clean:     ## remove the environment, the demo lake and the built documentation
	rm -rf .venv data/demo site
