# make demo | test | check: each sets up .venv by itself.
.DEFAULT_GOAL := help
.PHONY: help setup demo test fast check audit chaos chaos-demo model mutants format protos lock stop-ray bench-setup clean

help:
	@echo "make demo     set up and run the whole recipe in miniature (configs/demo.yaml)"
	@echo "make test     set up and run every test, the ones on real vLLM, Ray and Redis too; coverage"
	@echo "make fast     the tests that need no Ray and no vLLM"
	@echo "make check    what CI checks beside the tests: lint, types, imports, generated code, deploy/"
	@echo "make audit    known vulnerabilities of the locked packages (pip-audit)"
	@echo "make chaos    KILLS=200 SEED=0: a run whose parts are killed, and what a checker finds"
	@echo "make chaos-demo  KILLS=10 SEED=0: the same to the running demo, with vLLM"
	@echo "make model    EXAMPLES=2000: queues and episodes against their models, other runs each time"
	@echo "make mutants  single faults in the pure files and the queues: how many the tests find"
	@echo "make format   let ruff format and fix"
	@echo "make protos   generate code from protos/"
	@echo "make lock     resolve pyproject.toml into requirements/cpu.lock and gpu.lock"
	@echo "make setup GPU=1  .venv for a machine with GPUs (Python 3.12); it stays so until GPU=0"
	@echo "make stop-ray end the local Ray that ray.keep left under OUTPUT (runs)"
	@echo "make bench-setup  TRL in an environment of its own, .venv-trl, for bench/*_vs_trl.py"
	@echo "make clean    remove .venv, .venv-trl and caches (runs/ stays)"

setup:
	@scripts/setup.sh

demo: setup
	@.venv/bin/python orchestrator/run.py

test: setup
	.venv/bin/pytest --cov --cov-report=
	@.venv/bin/python scripts/coverage_table.py

fast: setup
	.venv/bin/pytest tests/unit tests/contract

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache
	scripts/protos.sh --check
	.venv/bin/python -m scripts.deploy_check

audit: setup
	@.venv/bin/python -m scripts.audit requirements/cpu.lock

chaos: setup
	@.venv/bin/python -m tests.chaos.storm --kills $(or $(KILLS),200) --seed $(or $(SEED),0)

chaos-demo: setup
	@.venv/bin/python -m tests.chaos.demo --kills $(or $(KILLS),10) --seed $(or $(SEED),0)

model: setup
	PAIRLOOP_MODEL_EXAMPLES=$(or $(EXAMPLES),2000) .venv/bin/pytest tests/model --timeout 0

mutants: setup
	@.venv/bin/python scripts/mutants.py $(ONLY)

format: setup
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

protos: setup
	@scripts/protos.sh

lock: setup
	@scripts/lock.sh

stop-ray:
	@.venv/bin/python -m orchestrator.stages.kept $(or $(OUTPUT),runs)

bench-setup: setup
	@scripts/bench_setup.sh

clean:
	rm -rf .venv .venv-trl .mypy_cache .ruff_cache .pytest_cache .coverage mutants
