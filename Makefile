# The only task runner: people and CI call the same targets. `make` lists them.
#
# The user builds. Only what creates network namespaces runs as root, through sudo if needed.

# Passes the user's PATH on: rustup's programs are in the user's home, and sudo would reset PATH. A user's PATH of Debian lacks
# the folders of root's programs, such as sysctl.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo -E env PATH="$(PATH):/usr/local/sbin:/usr/sbin:/sbin")

# These files tell nextest and the tests what the user has built, so that root never runs the compiler.
BUILT := target/nextest
bench_program = $$(sed -nE 's/.*"name":"$(1)".*"executable":"([^"]+)".*/\1/p' $(BUILT)/benches.json)
RUN_TESTS = $(AS_ROOT) OVERLAY_LAB=required \
	OVERLAY_CONTEST="$(call bench_program,contest)" OVERLAY_NODE_BENCH="$(call bench_program,node)" \
	cargo-nextest nextest run \
	--binaries-metadata $(BUILT)/binaries.json --cargo-metadata $(BUILT)/workspace.json

# What is tested and checked has all features. What is built for users has those that need no more than Rust, make and gcc.
ALL := --features etcd

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

.PHONY: build
build: ## build the optimised binary: target/release/overlay
	cargo build --release --locked --bin overlay

.PHONY: demo
demo: ## show two clouds on this machine, and ordinary programs over the tunnel between them (sudo)
	scripts/setup demo
	cargo build --release --locked --bin overlay
	$(AS_ROOT) scripts/demo target/release/overlay

.PHONY: test
test: ## run every test: unit, simulation, and the real binary in network namespaces (sudo)
	scripts/setup test
	@$(MAKE) --no-print-directory built
	$(RUN_TESTS)

.PHONY: check
check: ## check format, lints, words, documentation, and licences, sources and advisories of dependencies
	scripts/setup check
	scripts/words
	cargo fmt --all --check
	cargo check --quiet --locked --bin overlay
	cargo clippy --workspace --all-targets --locked $(ALL) -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked $(ALL)
	cargo deny --log-level error check bans licenses sources
	scripts/advisories
	cargo check --quiet --manifest-path fuzz/Cargo.toml --target-dir target/fuzz --locked

.PHONY: bless
bless: ## write the generated files: tables in docs, configs/reference.toml, schema.json, openapi.json
	OVERLAY_BLESS=1 cargo test --quiet --workspace --locked $(ALL) --lib --test docs -- committed generated

.PHONY: advisories
advisories: ## list known vulnerabilities of dependencies; fails without a database of them
	scripts/setup check
	scripts/advisories required

.PHONY: soak
soak: ## run the tests that take longer than five minutes each (sudo)
	scripts/setup test
	@$(MAKE) --no-print-directory built
	$(RUN_TESTS) --profile soak

.PHONY: matrix
matrix: ## test every MTU with every kind of router, and write the table: tests/MATRIX.md (sudo)
	scripts/setup test
	@$(MAKE) --no-print-directory built
	$(RUN_TESTS) --profile matrix
	cat tests/mtu/table.md target/tmp/matrix/V4.md target/tmp/matrix/V6.md >tests/MATRIX.md

.PHONY: nats
nats: ## join agents behind every pair of NATs, and write the table: tests/NATS.md (sudo)
	scripts/setup test
	@$(MAKE) --no-print-directory built
	$(RUN_TESTS) --profile nats
	cat tests/paths/table.md target/tmp/nats/*.md >tests/NATS.md

.PHONY: crowd
crowd: ## test a rendezvous with 10,000 agents, and write the table: tests/CROWD.md (sudo)
	scripts/setup test
	@$(MAKE) --no-print-directory built
	$(RUN_TESTS) --profile crowd
	cat tests/crowd/table.md target/tmp/crowd/agents.md target/tmp/crowd/floods.md tests/crowd/shared.md target/tmp/crowd/shared.md >tests/CROWD.md

# `make bench BENCH_ONLY=tcp,overlay,gotatun BENCH_SECONDS=1`: benches/contest/settings.rs lists the settings.
.PHONY: bench
bench: ## compare the data plane with other WireGuards and nebula: table, report and plot in target/bench (sudo)
	scripts/setup bench
	@mkdir -p target/bench
	cargo build --release --locked --bench contest --message-format json-render-diagnostics >target/bench/built.json
	cargo build --release --locked --bin overlay
	$(AS_ROOT) "$$(sed -nE 's/.*"name":"contest".*"executable":"([^"]+)".*/\1/p' target/bench/built.json)"

# Runs each target for this many seconds. Needs a nightly toolchain: see fuzz/README.md.
FUZZ_SECONDS ?= 60
.PHONY: fuzz
fuzz: ## fuzz every parser (needs a nightly toolchain)
	scripts/setup fuzz
	cd fuzz && targets=$$(cargo +nightly fuzz list) && test -n "$$targets" && for target in $$targets; do \
		cargo +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) || exit 1; done

.PHONY: profile
profile: ## draw flame graphs of the engine thread in both directions, into benches/profile (sudo)
	scripts/setup profile
	cargo build --release --locked --bin overlay
	$(AS_ROOT) scripts/profile target/release/overlay benches/profile

# Everything that takes too long for `make test`. Each target writes its results, which are then committed.
.PHONY: weekly
weekly: ## run soak, matrix, nats, crowd, bench, profile and fuzz, which takes hours (sudo, needs a nightly toolchain)
	$(MAKE) advisories
	$(MAKE) soak
	$(MAKE) matrix
	$(MAKE) nats
	$(MAKE) crowd
	$(MAKE) bench
	cp target/bench/RESULTS.md benches/RESULTS.md
	$(MAKE) profile
	$(MAKE) fuzz

.PHONY: built
built:
	@mkdir -p $(BUILT)
	cargo metadata --format-version 1 --locked $(ALL) >$(BUILT)/workspace.json
	cargo nextest list --workspace --locked $(ALL) --list-type binaries-only --message-format json >$(BUILT)/binaries.json
	cargo build --workspace --locked $(ALL) --bench contest --bench node --message-format json-render-diagnostics >$(BUILT)/benches.json

.PHONY: install
install: build ## install program, unit, manual pages, completions and example configs; honours PREFIX and DESTDIR (sudo)
	$(if $(DESTDIR),,$(AS_ROOT)) scripts/install

.PHONY: clean
clean: ## remove what cargo has built
	cargo clean
