# Two commands do all their own set-up on a fresh Debian 12 or 13 with Rust 1.95 or newer:
#   make run    a cluster of one, with a demonstration by a real kernel client where there is none
#   make test   everything that CI checks (docs/testing.md)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
# Absolute, as scripts change directory.
TARGET := $(abspath $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target))
BIN := $(TARGET)/release
# Link with mold where it is there: half the time of a rebuild on two cores is linking.
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS ?= $(shell command -v mold >/dev/null && echo "-C link-arg=-fuse-ld=mold")

.PHONY: help run build test lint unit sim system fabric bench test-all soak audit clean image image-short image-test nvme-test servers-test

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## a cluster of one, until Ctrl-C
	@tests/setup run
	$(CARGO) build --release --quiet -p basalt-daemon -p basalt-cli -p basalt-system-tests
	@tests/run $(BIN)

build: ## all programs, release profile
	$(CARGO) build --release --workspace

test: ## everything that CI checks, within 45 minutes on two cores
	@tests/setup test
	@tests/setup fabric
	@tests/setup image-short
	@tests/timed lint $(MAKE) --no-print-directory lint
	@tests/timed build $(MAKE) --no-print-directory build
	@tests/timed unit $(MAKE) --no-print-directory unit
	@tests/timed sim $(MAKE) --no-print-directory sim
	@tests/timed system $(MAKE) --no-print-directory system
	@tests/timed fabric $(MAKE) --no-print-directory fabric
	@tests/timed image $(MAKE) --no-print-directory image-short

lint: ## format, clippy, rustdoc, cargo deny
	$(CARGO) fmt --all --check
	$(CARGO) clippy --quiet --release --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" $(CARGO) doc --quiet --release --workspace --no-deps --document-private-items
	@tests/deny check licenses bans sources

unit: ## unit and property tests of every crate
	$(CARGO) test --release --workspace

sim: ## seeded simulation: regression seeds, fresh seeds, planted faults
	$(BIN)/basalt-sim test --seeds-of "$$(git rev-parse HEAD 2>/dev/null || date +%s)"

system: ## real kernel clients against real processes
	$(BIN)/basalt-system-tests run

fabric: ## one real switch (Open vSwitch) and nodes in network namespaces; as root
	@tests/setup fabric
	$(BIN)/basalt-fabric-tests run

bench: ## benchmarks with a peer or the floor in the same run; rows in target/bench
	@tests/setup bench
	$(CARGO) build --release -p basalt-daemon -p basalt-cli -p basalt-bench -p basalt-system-tests -p basalt-nvme-tests
	$(CARGO) build --release -p basalt-nvme --features mock --example overhead
	$(BIN)/basalt-bench

nvme-test: ## the NVMe driver in an emulated machine, behind an emulated IOMMU
	@tests/setup nvme
	$(CARGO) build --release --quiet -p basalt-nvme-tests
	@tests/timed nvme $(BIN)/basalt-nvme-tests run

test-all: test nvme-test ## and what is too long for every change
	$(BIN)/basalt-sim test-all
	BASALT_REDFISH_VALIDATE=all $(CARGO) test --release -p basalt-redfish --test independent
	@tests/timed rack $(BIN)/basalt-fabric-tests run rack
	$(MAKE) --no-print-directory image
	$(MAKE) --no-print-directory image-test
	@tests/timed servers $(MAKE) --no-print-directory servers-test

image: ## the appliance image, from Debian packages; as root, output in target/image/out
	@tests/setup image
	image/build $(TARGET)/image

image-short: ## boots the image and upgrades it once, of the programs of `make build`; as root
	@tests/setup image-short
	@if [ "$$(id -u)" = 0 ]; then image/short $(TARGET)/image $(BIN) && $(BIN)/basalt-image-tests --image $(TARGET)/image short; \
	else echo "image: left out, since making it needs root"; fi

image-test: ## boots the image in QEMU, every way, and sees wrong images refused; after `make image`
	@tests/setup image-test $(TARGET)/image
	$(CARGO) build --release --quiet -p basalt-image-tests
	image/broken $(TARGET)/image
	BASALT_VERSION=0.99.0 BASALT_PROGRAMS=$(TARGET)/image/programs image/variant $(TARGET)/image $(TARGET)/image/next
	$(BIN)/basalt-image-tests --image $(TARGET)/image
	image/reproducible $(TARGET)/image
	buildroot/check

servers-test: ## virtual servers behind sushy-tools and libvirt, provisioned until they serve; as root, after `make image`
	@tests/setup servers $(TARGET)/servers-test
	$(CARGO) build --release --quiet -p basalt-cli -p basalt-server-tests
	$(BIN)/basalt-server-tests --image $(TARGET)/image --venv $(TARGET)/servers-test/venv --logs $(TARGET)/servers-test/logs

soak: ## simulate fresh seeds until stopped
	$(CARGO) build --release -p basalt-sim
	$(BIN)/basalt-sim soak

audit: ## known vulnerabilities of the dependencies; needs the Internet
	@tests/deny check advisories

clean: ## build output and data of `make run`
	$(CARGO) clean
	rm -rf var
