# `make run` and `make test` each do all of their set-up on Debian 12, 13 or Ubuntu 24.04, and say what it will be first.
ENGINES ?= process,docker,libvirt
ROUNDS ?= 10
# Long, for guests on a machine that is itself emulated; what dies before it answers is told of at once.
TIMEOUT ?= 5m
HTML ?= build/boot.html
export ENGINES

comma := ,
wanted = $(filter $(1),$(subst $(comma), ,$(ENGINES)))
empty :=
TARGETS ?= $(subst $(empty) $(empty),$(comma),$(strip $(call wanted,process) $(call wanted,docker) \
    $(if $(call wanted,libvirt),libvirt:microvm libvirt:q35)))

BIN := .venv/bin
ACCESS := vagrant/with-access.sh

.PHONY: help provision provision-tests venv venv-dev run test test-whole lint pytest accept doctor uninstall clean
.NOTPARALLEL:

help: ## Show this
	@echo 'Stratalab: one service on every kind of platform, launched for real and measured.'
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18
	@echo 'Variables: ENGINES=$(ENGINES)  TARGETS=$(TARGETS)  ROUNDS=$(ROUNDS)  HTML=$(HTML)'

run: provision venv ## Set up what is missing, boot the service on every target, show the table and write the report
	@mkdir -p $(dir $(HTML))
	@$(ACCESS) $(BIN)/lab run boot --targets $(TARGETS) --rounds $(ROUNDS) --timeout $(TIMEOUT) --html $(HTML)

test: provision-tests venv-dev lint pytest ## Set up what is missing, then every check and the whole test suite

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	if command -v shellcheck >/dev/null; then shellcheck -x vagrant/*.sh examples/*/*.sh .ci/run $(filter-out %.py,$(wildcard tests/integration/setup/played/*)); fi

pytest: # PYTEST_ARGS= goes to both turns
	@$(ACCESS) $(BIN)/python tests/turns.py $(PYTEST_ARGS)

test-whole: provision-tests venv-dev ## Ask all of the contract of whole guests, each launch of which boots a distribution: half an hour, emulated
	@$(ACCESS) $(BIN)/lab guest build
	@$(ACCESS) $(BIN)/python -m pytest --whole tests/contract tests/integration/drivers/test_libvirt_whole.py -m whole $(PYTEST_ARGS)

accept: provision-tests venv-dev ## Check the lab's figures against separate programs; prints each verdict
	@$(ACCESS) $(BIN)/python tests/accept/run.py

doctor: venv ## Show each engine: there or not, why, and what mends it
	@$(ACCESS) $(BIN)/lab doctor

provision: ## Install and start only what the engines need (ENGINES= limits it; FIX_KVM=1 gives group kvm /dev/kvm also beside a libvirtd that runs)
	@vagrant/provision.sh

provision-tests:
	@vagrant/provision.sh --tests

venv:
	@vagrant/venv.sh

venv-dev:
	@vagrant/venv.sh dev

uninstall: ## Take back what the set-up installed and started, and only that (PURGE=1: with configuration and data)
	@if [ -x $(BIN)/lab ]; then $(ACCESS) $(BIN)/lab clean --yes || echo 'lab clean did not succeed: going on' >&2; fi
	@vagrant/uninstall.sh

clean: ## Remove what was made in this checkout: .venv, build/ and caches
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find lab drivers scenarios tests -name __pycache__ -type d -exec rm -rf {} +
