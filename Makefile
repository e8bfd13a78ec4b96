# Stellar: see `make help`.
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# hashicorpmetrics: raft-boltdb and raft then share one go-metrics sink (docs/dependencies.md).
TAGS    := hashicorpmetrics
LDFLAGS := -s -w -X main.version=$(VERSION)
GO      := go
CACHE   := $(CURDIR)/.cache
export GOFLAGS := -tags=$(TAGS)

UNIT   := $(shell $(GO) list ./... 2>/dev/null | grep -vE '/(netsetup|routes|integration|events)(/|$$)|internal/(check|nlx|nsx|ping|testx|hold|web)|stellar/packaging$$')
KERNEL := ./netsetup/... ./routes/... ./internal/nlx/... ./internal/nsx/... ./internal/ping/... ./internal/check/...
REAL   := ./events/... ./internal/testx/... ./internal/hold/...
NODES  := ./integration/... ./packaging/...

# How the nodes of the demo and of the fault suite attach containers: bridge, routed; mixed in the suite.
MODE ?=

.PHONY: help
help: ## List every target
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build everything in bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

.PHONY: deb
deb: build ## Make the Debian package in bin, for this machine's architecture
	rm -f bin/stellar_*.deb
	VERSION='$(VERSION)' ./packaging/deb.sh bin bin

.PHONY: reproducible
reproducible: ## Build programs and package twice, in two places, and compare
	$(GO) test -count 1 -v -run '^TestReproducible$$' ./packaging

# Where the Go vulnerability database is: file:///DIR for a copy (docs/systemd.md).
VULNDB ?= https://vuln.go.dev

.PHONY: govulncheck
govulncheck: ## Look for known vulnerabilities in what is called (VULNDB=file:///DIR without a network)
	$(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0 -db $(VULNDB) ./...

.PHONY: deps
deps: ## Install what a fresh Debian or Ubuntu lacks (containerd, runc, nftables, iproute2, …)
	./packaging/deps.sh

.PHONY: demo-deps
demo-deps:
	./packaging/deps.sh demo

.PHONY: demo
demo: demo-deps build ## Three nodes on real containerd, in network namespaces of their own; MODE=routed: without bridges
	STELLAR_DEMO_MODE=$(MODE) ./packaging/demo.sh up

.PHONY: demo-down
demo-down: ## Remove everything that `make demo` made
	./packaging/demo.sh down

PARTS := deps build lint test-unit test-sim test-web test-kernel test-integration test-faults

.PHONY: test
test: ## Everything that must hold (needs root); prints how long each part took
	@rm -rf bin/unstable; times=""; for part in $(PARTS); do \
		began=$$SECONDS; $(MAKE) --no-print-directory $$part; times+="$$part $$((SECONDS - began)) s, "; done; \
	echo "$${times}all $$((SECONDS / 60)) min $$((SECONDS % 60)) s"; \
	! grep -rH . bin/unstable 2>/dev/null || echo "unstable: these failed once and passed alone; mend them"

# A test that fails once among others is run again, alone; what then passes is named as
# unstable, in bin/unstable (CONTRIBUTING.md). Not when many fail, and in vain after what
# no load excuses: internal/testx/safety reads what the first attempts have said.
# $(1): name, $(2): packages, $(3): flags of go test.
GOTESTSUM := $(GO) run gotest.tools/gotestsum@v1.13.0
AGAIN      = mkdir -p bin/unstable && rm -f bin/unstable/$(1) bin/events-$(1).json && $(GOTESTSUM) --format standard-quiet --jsonfile bin/events-$(1).json --rerun-fails=2 --rerun-fails-max-failures=5 --rerun-fails-run-root-test --rerun-fails-abort-on-data-race --rerun-fails-report=bin/unstable/$(1) --packages='$(2)' -- $(3) && $(GO) run ./internal/testx/safety bin/events-$(1).json

.PHONY: root
root:
	@[ "$$(id -u)" = 0 ] || { echo "these tests make network namespaces and start containerd: run them as root (sudo make $(MAKECMDGOALS))" >&2; exit 1; }

.PHONY: test-unit
test-unit: ## Tests without kernel or containerd, with the race detector
	$(GO) test -race -timeout 15m -skip '^TestFault' $(UNIT)

.PHONY: test-sim
test-sim: ## 10,000 simulated histories of 1,000 steps, without the race detector
	$(GO) test -timeout 15m -run '^TestSimulate' ./agent

.PHONY: web-deps
web-deps:
	./packaging/deps.sh web

.PHONY: test-web
test-web: web-deps ## Tests of the web page in headless Chromium; pictures in bin/pictures
	$(GO) test -race -timeout 15m -skip '^TestPage' ./internal/web/...
	$(GO) test -timeout 15m -v -run '^TestPage' ./internal/web

.PHONY: test-kernel
test-kernel: root ## Tests on the real kernel, in namespaces that they make
	$(call AGAIN,kernel,$(KERNEL),-race -timeout 15m -p 1 -skip '^TestFault')

.PHONY: test-integration
test-integration: root build ## Tests with real containerd and runc, in namespaces that they make
	$(call AGAIN,real,$(REAL),-race -timeout 15m -p 1 -skip '^TestFault')
	$(call AGAIN,nodes,$(NODES),-race -timeout 40m -p 2 -skip '^TestFault')

.PHONY: test-faults
test-faults: root build ## The fault suite, the tests TestFault… of all packages; prints what they measured (docs/reliability.md); MODE=routed or mixed: in that mode
	STELLAR_TEST_MODE=$(MODE) $(GO) run ./internal/testx/faultrun

.PHONY: test-faults-long
test-faults-long: root build ## A part of the suite's long figures, SHARD=1/24: within an hour; the same command goes on
	@[ -n "$(SHARD)" ] || { echo "which part? SHARD=1/24 is the first of twenty-four" >&2; exit 2; }
	STELLAR_TEST_MODE=$(MODE) $(GO) run ./internal/testx/faultrun -shard $(SHARD)

.PHONY: test-mutations
test-mutations: ## Break each promise of testdata/mutations in a copy, and see its test fail (needs root)
	./packaging/mutations.sh

.PHONY: test-mutations-whole
test-mutations-whole: root ## The same with the tests on whole nodes, one at a time: the better part of an hour
	JOBS=1 ./packaging/mutations.sh --whole

.PHONY: lint
lint: ## gofmt, go vet, staticcheck; known vulnerabilities if their database can be reached
	@f=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$f" ] || { echo "gofmt: $$f" >&2; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	@if curl -sfo /dev/null -m 10 $(VULNDB)/index/db.json; then $(MAKE) --no-print-directory govulncheck; \
	else echo "lint: $(VULNDB) cannot be reached, known vulnerabilities are not looked for"; fi

.PHONY: bench-deps
bench-deps:
	./packaging/deps.sh bench

# A part of the table: SECTION=Attach, or SECTION='(Attach|Leases)'.
SECTION ?= .*
FIGURES := testdata/bench/last.json

.PHONY: bench
bench: bench-deps root build ## Measure a node, a cluster and its peers; one table (SECTION=Attach: a part)
	@echo "building what is measured …" >&2
	$(GO) test -c -ldflags "-X stellar.io/stellar/integration.builtFrom=$$(git describe --always --dirty --abbrev=12 '--exclude=*' 2>/dev/null || echo unknown)" -o bin/bench ./integration
	cd integration && STELLAR_BENCH_JSON=$(CURDIR)/bin/bench.json ../bin/bench -test.run '^$$' -test.bench '^BenchmarkTable$$/^$(SECTION)$$' -test.benchtime 1x -test.timeout 60m
	$(GO) run ./internal/testx/benchfigures compare bin/bench.json $(FIGURES)

.PHONY: bench-keep
bench-keep: ## Keep the last run's figures as those of the documentation
	$(GO) run ./internal/testx/benchfigures keep bin/bench.json $(FIGURES)
	$(GO) test -count 1 -run '^TestDocumentation$$' ./internal/testx/bench -update

.PHONY: generate
generate: ## Make the generated code anew (needs protoc: `make deps`)
	./packaging/generate.sh

.PHONY: generate-docs
generate-docs: ## Make the pages of docs anew that follow from the code
	$(GO) run ./cmd/stellar reference docs
	$(GO) test -count 1 -run '^TestDocumentation$$' ./api/peerapi ./internal/testx/bench -update

.PHONY: docs
docs: ## The documentation as a site in .cache/site, every warning an error
	./packaging/deps.sh docs
	mkdocs build --quiet --strict
