# The verbs of the project. CI runs the same ones (.ci/run).
.DEFAULT_GOAL := help
.PHONY: help run test faults fuzz bench dashboards scan image release cluster-up cluster-test autoscaling restore-drill cluster-down loadtest lint format hooks clean

help: ## Say what each verb does
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1@\2/p' Makefile | awk -F@ '{ printf "%-13s %s\n", $$1, $$2 }'

run: ## Install what is missing, then serve everything on this machine (ARGS="--port 9000")
	@scripts/uv sync --frozen --inexact --no-dev --all-extras --compile-bytecode
	@.venv/bin/python -m compileall -q src
	@exec .venv/bin/kgents up $(ARGS)

test: ## Install what the tests need, then run every tier of them (ARGS="-k words")
	@scripts/test $(ARGS)

faults: ## Run the fault tests with their full counts (hours) and write docs/reliability.md (ARGS="tests/faults/test_quotas.py")
	@scripts/faults $(ARGS)

fuzz: ## Fuzz the API and the parsers with full counts (hours) and write docs/reliability.md (ARGS="tests/fuzz/test_api.py")
	@scripts/fuzz $(ARGS)

bench: ## Run every benchmark (forty minutes) and write docs/benchmarks.md (ARGS="chat start" for some)
	@scripts/test-packages
	@scripts/uv sync --quiet --frozen --all-extras --compile-bytecode
	@.venv/bin/python -m compileall -q src
	@scripts/uv run --frozen --no-sync python -m bench $(ARGS)

dashboards: ## Write the dashboards and the rules of Prometheus from monitoring/
	@scripts/uv run --quiet --frozen --all-extras python -m monitoring

scan: ## Run every scanner: dependencies, configuration, secrets, licences (ARGS="--image FILE --allow-unknown")
	@scripts/scan $(ARGS)

image: ## Build the container image, with docker, podman or buildah (IMAGE=name:tag)
	@scripts/image

release: ## Build wheel, sdist, image and bills of materials of this commit, with provenance (ARGS="verify dist/1.2.3")
	@scripts/uv sync --quiet --frozen --all-extras
	@scripts/uv run --frozen --no-sync python -m release $(ARGS)

cluster-up: ## Start a Kubernetes of three nodes on this machine, for tests (as root); KUBECONFIG is told at the end
	@scripts/test-packages
	@scripts/uv sync --quiet --frozen --all-extras
	@scripts/uv run --frozen --no-sync python -m cluster up

cluster-test: ## Run the tests that need a cluster: that of cluster-up, of KGENTS_TEST_KUBECONFIG, or one of their own (ARGS="-k drained")
	@scripts/test-packages
	@scripts/uv sync --quiet --frozen --all-extras
	@scripts/uv run --frozen --no-sync python -m pytest -p tests.support.tiers tests/cluster $(ARGS)

autoscaling: ## Run the autoscaler in a cluster under load (ten minutes, alone on the machine) and write docs/saas/autoscaling.md
	@scripts/test-packages
	@scripts/uv sync --quiet --frozen --all-extras
	@KGENTS_SCALING=$(CURDIR)/evidence/autoscaling.json scripts/uv run --frozen --no-sync python -m pytest -p tests.support.tiers tests/cluster/test_scaling.py
	@scripts/uv run --frozen --no-sync python -m tests.cluster.page

restore-drill: ## Lose the bus's messages and the ledger in a cluster, restore both, and write evidence/restore.json (five minutes)
	@scripts/test-packages
	@scripts/uv sync --quiet --frozen --all-extras
	@KGENTS_RESTORE=$(CURDIR)/evidence/restore.json scripts/uv run --frozen --no-sync python -m pytest -p tests.support.tiers tests/cluster/test_backup.py

cluster-down: ## Stop that cluster, and leave nothing behind
	@scripts/uv run --frozen --no-sync python -m cluster down

loadtest: ## Load tests and the capacity (nine minutes, alone on the machine): docs/saas/load-test-baseline.md and the manifests' numbers
	@scripts/loadtest $(ARGS)

lint: ## Check style, types, layers and the lock file
	@scripts/lint

format: ## Put the code into the form that lint asks for
	@scripts/uv run --quiet --frozen --all-extras ruff check --fix
	@scripts/uv run --quiet --frozen --all-extras ruff format

hooks: ## Have git run lint before each commit
	@scripts/uv run --quiet --frozen --all-extras pre-commit install

clean: ## Remove caches and reports; what is in data/ stays
	@rm -rf .coverage .coverage.* htmlcov dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
