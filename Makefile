PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup browser postgres compare bench docs test test-all test-faults lint test-lowest constraints clean

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	@echo "Installing pinned versions into .venv: a few minutes and about 6 GB, once."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,docs]'
	@touch $@

browser: ## Chromium, which clicks through the pages in the tests; Debian's package where there is none
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	echo "Installing chromium with apt-get."; \
	sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	$$sudo apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -qq -y --no-install-recommends chromium >/dev/null

postgres: ## PostgreSQL's programs, which the tests start as an unprivileged user; Debian's package where there is none
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && exit 0; \
	echo "Installing postgresql with apt-get."; \
	sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	$$sudo apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -qq -y --no-install-recommends postgresql >/dev/null

compare: setup ## InfoNCE and WEINCE on handwritten digits, about two minutes; ARGS="--epochs 5" and the like
	$(BIN)/weince compare $(ARGS)

bench: setup ## what the loss costs beside other libraries, most of an hour: bench/results.csv and docs/cost.png
	$(BIN)/python bench/loss.py $(ARGS)
	$(BIN)/python bench/step.py
	$(BIN)/python bench/figure.py

test: setup browser postgres ## the test suite, a part of each exhaustive test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(ARGS)

test-faults: setup postgres ## kills 20 trainings and workers of 30 trials, 10,000 steps of soak: half an hour
	FAULTS=full OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "" tests/faults $(ARGS)

test-all: setup browser postgres ## what a release takes: every test, the exhaustive ones and all faults; over an hour
	FAULTS=full OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "" --numprocesses 2 --dist worksteal $(ARGS)

docs: setup ## site/: a page for each setting and the reference; fails on a warning, such as a broken link
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Open site/index.html, or: $(BIN)/mkdocs serve"

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/mypy tests/test_types.py

# Inductor of torch 2.5 and 2.6 (2.4: with dynamic shapes) fails on WEINCELoss on a CPU, inside itself; this is eager.
test-lowest: ## the core's tests with the lowest torch that pyproject.toml admits
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install --quiet --disable-pip-version-check 'torch==2.4.0' 'numpy<2.3' setuptools hypothesis pytest pytest-timeout
	.venv-lowest/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	.venv-lowest/bin/python -m pytest $(foreach room,lab adapters extremes diagnosis shell,--ignore src/weince/$(room) --ignore tests/$(room)) --ignore tests/faults --ignore tests/row_kernels --ignore tests/test_compile.py $(ARGS)

constraints: ## pin what is installed now
	$(BIN)/pip freeze --exclude-editable | sed 's/$$/; python_version >= "3.11"/' > constraints.txt

clean:
	rm -rf .venv .venv-lowest .pytest_cache .ruff_cache .hypothesis
