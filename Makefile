# run, test, lint, bench: each sets up what it needs, and is safe to repeat.
# A word of yours: `make run PORT=9000`, `make test ARGS='-k greeting'`, `make bench ARGS=--help`.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

python := $(VENV)/bin/python
# tools see development settings, whatever this shell or a .env says
tools := DEBUG=1 ENV_FILE=/dev/null $(python)

# `make run` is for development unless the environment or the .env has a word on DEBUG; it leaves a .env that says so,
# for `manage.py` in the next terminal
say_debug = env=$${ENV_FILE:-.env}; [ -n "$${DEBUG+said}" ] \
	|| grep -Eqs '^[[:space:]]*(export[[:space:]]+)?DEBUG[[:space:]]*=' "$$env" \
	|| { [ -e "$$env" ] || echo DEBUG=1 > "$$env"; export DEBUG=1; }

.PHONY: run test lint format bench clean

run: $(VENV)/run.stamp
	@$(say_debug); $(python) manage.py setup && exec $(python) -m project.serve $(ARGS)

# everything on SQLite first, then what depends on the database again on PostgreSQL
test: $(VENV)/dev.stamp
	$(python) -m pytest $(ARGS)
	$(python) -m tests.services --or-skip postgres -- $(python) -m pytest -m database --reuse-db $(ARGS) \
		|| [ $$? = 5 ]  # ARGS chose none of them

lint: $(VENV)/dev.stamp
	$(python) -m ruff format --check .
	$(python) -m ruff check .
	$(tools) -m mypy manage.py project agents calls

format: $(VENV)/dev.stamp
	$(python) -m ruff format .
	$(python) -m ruff check --fix .

bench: $(VENV)/dev.stamp
	$(tools) -m bench $(ARGS)

clean:
	rm -rf $(VENV) staticfiles .mypy_cache .pytest_cache .ruff_cache

$(VENV)/dev.stamp: requirements-dev.txt $(VENV)/run.stamp
	@echo "Installing $< into $(VENV)"
	@$(python) -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(VENV)/run.stamp: requirements.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed: make PYTHON=…")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "$(PYTHON) cannot make a virtual environment: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing $< into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(python) -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@
