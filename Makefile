.PHONY: setup demo test check format

setup:
	scripts/setup
demo:
	scripts/demo
test check:
	scripts/test
format:
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .
