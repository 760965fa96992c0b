PYTHON = .venv/bin/python

.PHONY: demo test check format
demo:
	scripts/demo
test:
	scripts/test
format:
	.venv/bin/ruff format . && .venv/bin/ruff check --fix .
check:
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PYTHON) -m pytest
