# Two commands to start with: make demo, make test. CONTRIBUTING.md says the rest.
VENV := .venv/bin
CLI := $(VENV)/clusterctl
# The demo's lab; empty: one of this clone's own.
LAB :=

.PHONY: demo demo-clean test test-vm check mirror bench venv docs docs-pages

demo:
	@tools/prepare
	@tools/demo up $(LAB)

demo-clean:
	@tools/demo down $(LAB)

test:
	@tools/prepare
	@tools/test

# Virtual machines on Debian's own kernel, and Vagrant. TESTS="-m 'not long'": the first part alone.
TESTS :=

test-vm:
	@tools/prepare vm
	tools/fill-mirror
	$(VENV)/python -m pytest -v -s tests/vm $(TESTS)

check:
	@tools/prepare check
	$(VENV)/ruff check clusterctl tests bench docs
	$(VENV)/mypy
	shellcheck tools/* clusterctl/shell/*.sh clusterctl/lab/*.sh .ci/run vagrant/apply vagrant/clusterctl vagrant/make-box
	$(VENV)/python -m pytest -q -n 2 tests/unit

mirror:
	@tools/prepare
	$(CLI) mirror

# The pages that are generated: verbs, settings, error codes.
docs-pages:
	@tools/prepare check
	$(VENV)/python docs/pages.py

# The manual as a site in .site; a dead link fails.
docs: docs-pages
	$(VENV)/pip install -q -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(VENV)/mkdocs build --strict
	@echo "the manual is .site/index.html"

bench:
	@tools/prepare
	$(VENV)/python -m bench

venv:
	@tools/prepare check
