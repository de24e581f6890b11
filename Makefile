# What a person types; `make` alone prints the targets.

PYTHON ?= python3
PORT ?= 8000
SPEED ?= 1440

# of tests: each file whole in one process, and two processes a core, since tests of servers wait
PARALLEL = --numprocesses $$(($$(getconf _NPROCESSORS_ONLN) * 2)) --maxprocesses 4 --dist loadfile \
	--no-loadscope-reorder
# what reads and writes numbers as text
OF_FLOATS = rows model api front adapters client watch/test_metrics.py

LOCKS = deploy/requirements
INSTALLED = .venv/.installed
PIP_COMPILE = .venv/bin/pip-compile --quiet --strip-extras --no-header --no-annotate --no-emit-index-url \
	--no-emit-find-links --no-emit-options --no-emit-trusted-host --unsafe-package pip --unsafe-package hourglass

# onnxruntime reports its use to its maker unless it is told not to.
export ORT_DISABLE_TELEMETRY = 1

.DEFAULT_GOAL = help
.PHONY: help demo demo-stream test test-fast test-heavy test-plain test-service bench bench-peers bench-quality \
	check format lock prometheus-rule swagger-ui uplot clean

help: ## print these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(INSTALLED) ## fit a model on real rows and serve it: make demo [PORT=8000]
	@.venv/bin/hourglass-train demo --models models --port $(PORT) && exec .venv/bin/hourglass serve --models models --port $(PORT)

demo-stream: $(INSTALLED) ## stream a simulated day with two faults to a model made for it: make demo-stream [PORT=8000 SPEED=1440]
	@.venv/bin/hourglass-train demo --stream --models models --port $(PORT)
	@.venv/bin/hourglass serve --models models --port $(PORT) & server=$$!; \
	trap 'kill $$server 2>/dev/null; wait $$server' EXIT; trap 'exit 0' INT TERM; \
	.venv/bin/hourglass stream demo/plant-today.csv --url http://127.0.0.1:$(PORT) --name plant \
		--time time --entity pump --speed $(SPEED) --afresh && \
	echo "The console shows it until Ctrl-C: http://127.0.0.1:$(PORT)/" && wait $$server

test: $(INSTALLED) ## run the whole suite
	.venv/bin/pytest $(PARALLEL)

test-heavy: $(INSTALLED) ## what takes minutes: a fresh machine without a compiler, from nothing to a running demo
	.venv/bin/pytest $(PARALLEL) -m heavy -rs

test-plain: $(INSTALLED) ## the service's tests on the Python that stands in where C could not be built
	@rm -rf build/plain && mkdir -p build/plain/hourglass && cp -R service build/plain/hourglass
	@rm -f build/plain/hourglass/service/floats/*.so
	PYTHONPATH=$(CURDIR)/build/plain .venv/bin/pytest $(PARALLEL) $(addprefix tests/service/,$(OF_FLOATS)) \
		tests/contract --ignore tests/contract/test_place.py

# Its environment is small and has no torch, whose CPU build may lack this version of Python.
test-service: ## the service's tests without training: make test-service PYTHON=python3.12
	@test "$$(build/service/bin/python -V 2>&1)" = "$$($(PYTHON) -V)" || \
		$(PYTHON) -m venv --clear build/service
	build/service/bin/pip install --quiet --disable-pip-version-check \
		--requirement $(LOCKS)/service.txt --constraint $(LOCKS)/dev.txt \
		cryptography flask flask-cors httpx hypothesis mlflow-skinny 'moto[s3]' obstore \
		opentelemetry-exporter-otlp-proto-http opentelemetry-sdk polars pytest schemathesis setuptools \
		alembic sqlalchemy
	build/service/bin/pip install --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation --editable .
	build/service/bin/python -m pytest tests/service

test-fast: $(INSTALLED) ## what a change breaks first, in under 90 s
	.venv/bin/pytest $(PARALLEL) -m 'not slow and not heavy'

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
	@mkdir -p build/names/hourglass && ln -sfn ../../../service build/names/hourglass/service && ln -sfn ../../../training build/names/hourglass/training && ln -sfn ../../../service/client build/names/hourglass/client && ln -sfn ../../../service/spark build/names/hourglass/spark
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

prometheus-rule: ## write the alerts anew as what the Prometheus Operator reads
	@{ printf '%s\n' '# Written by `make prometheus-rule` from deploy/prometheus/alerts.yml.' \
		'apiVersion: monitoring.coreos.com/v1' 'kind: PrometheusRule' 'metadata:' '  name: hourglass' \
		'  labels:' '    app.kubernetes.io/name: hourglass' 'spec:'; \
	sed -n '/^groups:/,$$p' deploy/prometheus/alerts.yml | sed 's/^\(.\)/  \1/'; } \
		> deploy/kubernetes/components/monitoring/prometheus-rule.yaml

swagger-ui: ## renew the assets of /docs: make swagger-ui VERSION=5.35.0 (needs npm)
	@test -n "$(VERSION)" || { echo "make swagger-ui needs VERSION=, a release of swagger-ui-dist" >&2; exit 2; }
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; assets=service/api/swagger; \
	(cd "$$folder" && npm pack --silent swagger-ui-dist@$(VERSION) >/dev/null && tar -xzf *.tgz); \
	for asset in swagger-ui-bundle.js swagger-ui.css; do gzip -9 -n -c "$$folder/package/$$asset" > $$assets/$$asset.gz; done; \
	cp "$$folder/package/LICENSE" "$$folder/package/NOTICE" "$$folder/package/swagger-ui-bundle.js.LICENSE.txt" $$assets/; \
	sed -E 's/(swagger-ui-dist |VERSION=)[0-9.]+[0-9]/\1$(VERSION)/' $$assets/README.md > "$$folder/README.md"; \
	cp "$$folder/README.md" $$assets/README.md

uplot: ## renew the console's plotting library: make uplot VERSION=1.6.32 (needs npm)
	@test -n "$(VERSION)" || { echo "make uplot needs VERSION=, a release of uplot" >&2; exit 2; }
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	(cd "$$folder" && npm pack --silent uplot@$(VERSION) >/dev/null && tar -xzf *.tgz); \
	cp "$$folder/package/LICENSE" "$$folder/package/dist/uPlot.iife.min.js" \
		"$$folder/package/dist/uPlot.min.css" \
		service/console/vendor/uPlot/

clean: ## remove the environment, caches and builds; models stay
	rm -rf .venv build dist *.egg-info service/floats/*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find service training tests -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment for everything, from the lock; the file in it marks that it is complete.
$(INSTALLED): $(LOCKS)/dev.txt pyproject.toml $(wildcard service/floats/csrc/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Hourglass needs Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 2; }
	test -x .venv/bin/pip || $(PYTHON) -m venv .venv
	@$(say_if_cuda)
	.venv/bin/pip install --quiet --disable-pip-version-check --requirement $(LOCKS)/dev.txt
	@rm -f service/floats/*.so
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@ls service/floats/*.so >/dev/null 2>&1 || echo "$(NOT_COMPILED)" >&2
	@touch $@

NOT_COMPILED = Without a C compiler and Python's headers JSON is read and written by Python, \
	several times slower (on Debian: apt install gcc libc6-dev python3-dev; then touch \
	pyproject.toml and make again).

# On x86-64 Linux the build without a suffix is the CUDA one. The sizes are of 2.13.0 and all that
# it depends on.
TORCH = $(patsubst torch==%,%,$(filter torch==%,$(file < $(LOCKS)/dev.txt)))
define say_if_cuda
if test "$$(uname -sm)" = "Linux x86_64" && \
	! ls -d .venv/lib/*/site-packages/torch-$(TORCH)*.dist-info >/dev/null 2>&1; then \
	case "$$(.venv/bin/pip index versions torch 2>/dev/null)" in \
		*"$(TORCH)+"*) ;; \
		*"$(TORCH)"*) printf '%s\n' \
			"pip will now take torch $(TORCH) for CUDA, 2.7 GB. The build for CPUs is 0.2 GB:" \
			"to take that, stop here (Ctrl-C), look up the address of the CPU wheels on" \
			"PyTorch's install page, and run PIP_EXTRA_INDEX_URL=ADDRESS make ..." >&2 ;; \
	esac; \
fi
endef
