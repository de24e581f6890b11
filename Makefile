# What a person types; `make` alone prints the targets.
#
# On Linux pip takes torch's CUDA build with its nvidia-* packages (several GB). For the smaller CPU build make the environment
# first, taking torch by the line that PyTorch's own install page shows for pip and CPU; `make` then finds the version it wants:
#   python3 -m venv .venv && .venv/bin/pip install torch==2.13.0 --index-url <the address on that page>

PYTHON ?= python3
PORT ?= 8000

LOCKS = deploy/requirements
INSTALLED = .venv/.installed
PIP_COMPILE = .venv/bin/pip-compile --quiet --strip-extras --no-header --no-annotate --no-emit-index-url \
	--no-emit-find-links --no-emit-options --no-emit-trusted-host --unsafe-package pip --unsafe-package hourglass

# onnxruntime reports its use to its maker unless it is told not to.
export ORT_DISABLE_TELEMETRY = 1

.DEFAULT_GOAL = help
.PHONY: help demo test test-fast bench bench-peers bench-quality check format lock swagger-ui clean

help: ## print these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(INSTALLED) ## fit a model on real rows and serve it: make demo [PORT=8000]
	@.venv/bin/hourglass-train demo --models models --port $(PORT) && exec .venv/bin/hourglass serve --models models --port $(PORT)

test: $(INSTALLED) ## run the whole suite
	.venv/bin/pytest

test-fast: $(INSTALLED) ## what a change breaks first, in under 90 s
	.venv/bin/pytest -m 'not slow and not heavy'

bench-quality: $(INSTALLED) ## measure detection quality: make bench-quality DATA=folder-of-npz [ARGUMENTS="--detectors all --seeds 0-4"]
	@test -n "$(DATA)" || { echo "make bench-quality needs DATA=, a folder of ADBench's npz files" >&2; exit 2; }
	.venv/bin/python -m tests.benchmarks.adbench "$(DATA)" $(ARGUMENTS)

bench: $(INSTALLED) ## measure speed in six minutes: make bench [ARGUMENTS="--only one-row --rounds 3"]
	.venv/bin/python -m tests.benchmarks.speed $(ARGUMENTS)

bench-peers: $(INSTALLED) ## the same beside other servers, each in an environment made for it, and memory over 200 reloads
	.venv/bin/python -m tests.benchmarks.speed --all $(ARGUMENTS)

check: $(INSTALLED) ## lint, format, types and import contracts
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	@mkdir -p build/names/hourglass && ln -sfn ../../../service build/names/hourglass/service && ln -sfn ../../../training build/names/hourglass/training
	.venv/bin/mypy
	.venv/bin/lint-imports

format: $(INSTALLED) ## put the code into the format that check wants
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

lock: $(INSTALLED) ## write deploy/requirements from pyproject.toml; what is pinned stays, unless the files are deleted first
	$(PIP_COMPILE) --extra dev --output-file $(LOCKS)/dev.txt pyproject.toml
	@$(call portable,dev)
	$(PIP_COMPILE) --extra training --constraint $(LOCKS)/dev.txt --output-file $(LOCKS)/training.txt pyproject.toml
	@$(call portable,training)
	$(PIP_COMPILE) --constraint $(LOCKS)/training.txt --output-file $(LOCKS)/service.txt pyproject.toml
	@$(call portable,service)

# Pins alone, without the +cpu of a local build: they must hold on any machine.
portable = { echo '\# Written by `make lock` from pyproject.toml.'; sed -nE 's/^([^ @]+==[^ +]+)(\+[^ ]+)?/\1/p' $(LOCKS)/$(1).txt; } \
	> $(LOCKS)/$(1).new && mv $(LOCKS)/$(1).new $(LOCKS)/$(1).txt

swagger-ui: ## renew the assets of /docs: make swagger-ui VERSION=5.35.0 (needs npm)
	@test -n "$(VERSION)" || { echo "make swagger-ui needs VERSION=, a release of swagger-ui-dist" >&2; exit 2; }
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; assets=service/api/swagger; \
	(cd "$$folder" && npm pack --silent swagger-ui-dist@$(VERSION) >/dev/null && tar -xzf *.tgz); \
	for asset in swagger-ui-bundle.js swagger-ui.css; do gzip -9 -n -c "$$folder/package/$$asset" > $$assets/$$asset.gz; done; \
	cp "$$folder/package/LICENSE" "$$folder/package/NOTICE" "$$folder/package/swagger-ui-bundle.js.LICENSE.txt" $$assets/; \
	sed -E 's/(swagger-ui-dist |VERSION=)[0-9.]+[0-9]/\1$(VERSION)/' $$assets/README.md > "$$folder/README.md"; \
	cp "$$folder/README.md" $$assets/README.md

clean: ## remove the environment, caches and builds; models stay
	rm -rf .venv build dist *.egg-info service/*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find service training tests -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment for everything, from the lock; the file in it marks that it is complete.
$(INSTALLED): $(LOCKS)/dev.txt pyproject.toml $(wildcard service/csrc/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Hourglass needs Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 2; }
	@command -v $${CC:-cc} >/dev/null || \
		{ echo "Hourglass needs a C compiler, for service/csrc: on Debian apt install gcc libc6-dev python3-dev" >&2; exit 2; }
	test -x .venv/bin/pip || $(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --requirement $(LOCKS)/dev.txt
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
