# The two main commands are `make demo` and `make test`; both create the environment in .venv if it is missing.
PYTHON ?= python3.11
IDENTITIES ?= 100
# Number of processes that run tests; each needs up to 2 GB.
WORKERS ?= 2
PHOTOS := .dynamicid/demo
# Relative, as the path of the checkout may have spaces and quotes.
BIN := .venv/bin
READY := .venv/.ready
DYNAMICID := $(BIN)/python -m pipelines.cli
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: demo showcase test nightly lint style types rooms pages workflows reference docs architecture env java mlflow airflow stack stack-stop e2e sbom vulnerabilities clean
.DEFAULT_GOAL := demo

env: $(READY)

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: apt-get install python3.11 python3.11-venv (Debian, Ubuntu), brew install python@3.11 (macOS), or make PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@# OpenCV needs libGL, which a machine without a screen may lack: install the headless build there.
	@$(BIN)/python -c "import cv2" 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps -c constraints.txt opencv-python-headless
	touch $@

java:
	@java -version 2>&1 | grep -Eq 'version "(1[7-9]|[2-9][0-9])' || { echo "Java 17 or later is missing: apt-get install openjdk-17-jre-headless (Debian, Ubuntu) or brew install openjdk@17 (macOS)" >&2; exit 1; }

# A versioned dataset; the adapter that ships as the first champion; a challenger trained from it on the new people; the same
# questions to both, and the gates' decision; see README.md.
demo: $(READY) java
	@$(DYNAMICID) synthesize --identities $(IDENTITIES) --out $(PHOTOS)
	@$(DYNAMICID) ingest $(PHOTOS) --out data/faces
	@$(DYNAMICID) repro validate preprocess validate_processed
	@$(DYNAMICID) register --adapter model/foundation/weights/adapter --accept-refusal
	@$(DYNAMICID) repro
	@$(DYNAMICID) register --accept-refusal
	@$(DYNAMICID) summary

# The demo with more people and steps: the first training of the adapter in the foundation; the others, and the time of all:
# docs/log/shipped-adapter.md. `git checkout params.yaml` restores the demo's parameters.
showcase: $(READY) java
	@$(DYNAMICID) configure --profile showcase
	@$(DYNAMICID) synthesize --namespace dataset --identities 1800 --photos 12 --out .dynamicid/showcase
	@$(DYNAMICID) ingest .dynamicid/showcase --out data/faces
	@$(DYNAMICID) repro
	@$(DYNAMICID) summary

lint: style types rooms pages workflows

style: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

rooms: $(READY)
	$(BIN)/lint-imports

# Figures, words, links and paths of all pages; pages that are generated from code; the site, which needs no network.
REFERENCES := commands data metrics parameters dags architecture
pages: $(READY)
	$(BIN)/python docs/scripts/prose.py
	@for page in $(REFERENCES); do $(BIN)/python docs/scripts/$$page.py --check || exit 1; done
	@# Not --quiet, with which --strict counts no warning.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

reference: $(READY)
	@for page in $(REFERENCES); do $(BIN)/python docs/scripts/$$page.py || exit 1; done

docs: $(READY)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict && echo "the pages: $$PWD/site/index.html"

SCHEMA := $(BIN)/check-jsonschema --builtin-schema
workflows: $(READY)
	$(BIN)/jactionlint --shellcheck=
	$(SCHEMA) custom.github-workflows-require-timeout .github/workflows/*.yaml
	$(SCHEMA) vendor.github-workflows .github/workflows/*.yaml
	$(SCHEMA) vendor.github-actions .github/actions/*/action.yaml
	$(SCHEMA) vendor.dependabot .github/dependabot.yml
	$(SCHEMA) vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(SCHEMA) vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
	$(SCHEMA) vendor.citation-file-format CITATION.cff
	$(BIN)/pre-commit validate-config .pre-commit-config.yaml

# What the environment and the images are made of, in CycloneDX 1.6, validated: sbom/*.cdx.json
sbom: $(READY)
	@mkdir -p sbom
	$(BIN)/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml --output-file sbom/environment.cdx.json $(BIN)/python
	@$(DYNAMICID) stack images --sbom sbom >/dev/null

# Asks PyPI for known vulnerabilities of every version in constraints.txt, so it needs internet. Strict: one that PyPI does
# not know is an error, not a version without vulnerabilities.
vulnerabilities: $(READY)
	$(BIN)/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip --progress-spinner off

# Rooms, floors and imports between them, printed and drawn: docs/pictures/rooms.svg
architecture: $(READY)
	$(BIN)/python docs/scripts/architecture.py

PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: $(READY) java lint
	$(PYTEST)

# All tests that can run here: also whole chains, kills, clusters, and the servers where PostgreSQL is installed.
nightly: $(READY) java lint
	$(PYTEST) -m "not full_size"
	$(MAKE) e2e

# MLflow in a browser: http://127.0.0.1:5000. First the database of a checkout that was moved names the artefacts beside it.
mlflow: $(READY)
	@env -u MLFLOW_TRACKING_URI $(BIN)/python -c "from pathlib import Path; import mlflow; from pipelines.registry.tracking import connect; connect(Path.cwd()); number = mlflow.get_experiment_by_name('dynamicid').experiment_id; print(f'the runs: http://127.0.0.1:5000/#/experiments/{number}/runs?workflowType=machine_learning')"
	$(BIN)/mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port 5000

# A development server with every DAG: http://127.0.0.1:8080
airflow: $(READY)
	export PYTHONPATH="$$PWD/dags" AIRFLOW_HOME="$$PWD/airflow" AIRFLOW__CORE__DAGS_FOLDER="$$PWD/dags" AIRFLOW__CORE__PLUGINS_FOLDER="$$PWD/dags/plugins" AIRFLOW__CORE__LOAD_EXAMPLES=False; \
	export NO_PROXY="$$NO_PROXY,$$no_proxy,127.0.0.1,localhost"; export no_proxy="$$NO_PROXY"; \
	$(BIN)/airflow db migrate && $(BIN)/airflow pools import docker/pools.json && exec $(BIN)/airflow standalone

# PostgreSQL, Airflow and MLflow for a team, on this machine, with generated passwords; see docs/guides/stack.md.
stack: $(READY) java
	@$(DYNAMICID) stack start

stack-stop: $(READY)
	@$(DYNAMICID) stack stop

# The whole chain through the servers and a browser: needs postgresql and chromium of Debian.
e2e: $(READY) java
	$(BIN)/python -m pytest -s -m stack tests/e2e tests/pipelines/operations/backup tests/pipelines/serving tests/pipelines/webpage

# Remove the dataset, models, reports, MLflow's database and caches. The servers' data, the inbox and the list of copies of
# faces stay; `dynamicid clean` removes only what is old.
clean:
	rm -rf data/faces data/processed models reports mlflow.db mlartifacts
	cd .dynamicid 2>/dev/null && rm -rf cache resume preprocess curate photos showcase foundation runs app || true
