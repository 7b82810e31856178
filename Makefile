# Two commands do everything on a fresh machine: `make grow` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
OUT ?= runs/hard

# The tests of the report's page need a Chromium; without one they are left out, but not where CI is set.
define CHROMIUM
if ! command -v chromium >/dev/null && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium >/dev/null; } \
	|| echo "Chromium could not be installed: tests of the report's page will be left out"; fi
endef

.PHONY: grow resume test quick check bench figures examples format docs api release clean

grow: .venv/run  ## grow a network from one unit on the hard task: about a minute, set-up included
	$(BIN)/diffstruct grow hard --seed 3 --out $(OUT) --overwrite

resume: .venv/run  ## go on with it, after Ctrl-C
	$(BIN)/diffstruct grow --resume $(OUT)

test: .venv/test  ## run every test, on all cores
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

quick: .venv/test  ## leave out the slow tests, for the inner loop: under a minute once kernels are compiled
	$(BIN)/python -m pytest --numprocesses auto -m "not slow"

check: .venv/dev  ## format, lint, types, layers and strict docs, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/mkdocs build --strict --quiet
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

bench: .venv/test  ## measure the compiled code against NumPy and torch.nn, on one core: about ten minutes
	$(BIN)/python benchmarks --json benchmarks/results.json

figures: .venv/test  ## draw every picture in docs and experiments, from the data beside it: about a minute
	$(BIN)/python experiments/figures

examples: .venv/test  ## run the examples, and renew what they print and draw in the docs: about ten minutes
	$(BIN)/python examples
	$(BIN)/python experiments/figures examples

format: .venv/dev  ## format, and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/dev  ## serve the documentation locally
	$(BIN)/mkdocs serve

api: .venv/test  ## renew the record of the public interface, which a test compares
	$(BIN)/python tests/helpers/api.py

release: .venv/dev  ## build wheel and sdist in dist/, and try them in a bare environment: some minutes
	$(BIN)/python tests/release

clean:
	rm -rf .venv dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis

# One marker a level of installation, renewed when what it depends on changes.
.venv/run: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install --constraint constraints.txt --editable .
	touch $@

.venv/test: .venv/run
	$(PIP) install --constraint constraints.txt --editable '.[test]'
	$(CHROMIUM)
	touch $@

.venv/dev: .venv/run
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	touch $@
