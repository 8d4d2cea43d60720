# Keymount: `make help` lists the targets. Programs that a target needs beyond Go, make and a C compiler are installed by
# scripts/need (as root on Debian) or named in one line.

PROGRAMS   := keymount keymount-azure keyvault-emulator
VERSION    ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME   ?= 30s
# How many tests need root and a mount namespace; where root is there, fewer than this is a failure.
ROOT_TESTS := 1
OUT        := .cache

# Two compile sets only: -race with cgo for tests, and this one for everything else.
PLAIN      := CGO_ENABLED=0 GOFLAGS="$(GOFLAGS) -trimpath"
TOOL       := $(PLAIN) go tool -modfile=tools/go.mod
TESTSUM    := go tool -modfile=tools/go.mod gotestsum --format pkgname --hide-summary skipped

.DEFAULT_GOAL := help
.PHONY: help demo build test test-unit test-kill test-recordings lint generate conformance verify bench fuzz clean

help: ## list the targets
	@echo "Keymount: secrets from Azure Key Vault as files. Targets:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## see it work: emulator, mount, rotation; no root, no Kubernetes
	@PATH="$(CURDIR)/bin:$$PATH" ./examples/demo/demo

build: ## build the programs into bin/
	$(PLAIN) go build -ldflags "-s -w -X main.version=$(VERSION)" -o bin/ $(PROGRAMS:%=./cmd/%)

test: test-unit ## run the tests (the unit suite)

test-unit: ## unit suite with -race; what needs root runs where root is there
	@scripts/need openssl
	@mkdir -p $(OUT)
	$(TESTSUM) --jsonfile $(OUT)/unit.json -- -race -timeout 5m ./...
	@scripts/count-root-tests $(OUT)/unit.json $(ROOT_TESTS)

test-kill: ## kill a writer at every system call and at 500 random moments
	@scripts/need strace

test-recordings: ## compare the emulator and the provider with recorded answers of the service
	cd test/recordings && go test -count=1 -v ./...

lint: ## gofmt, go vet, staticcheck
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo "gofmt -w the files above" >&2; exit 1; }
	$(PLAIN) go vet ./...
	$(TOOL) staticcheck ./...
	GOOS=windows $(PLAIN) go vet ./...
	GOOS=darwin $(PLAIN) go vet ./...

generate: ## regenerate what is generated: API types, CRDs, protocol

conformance: $(OUT)/unit.json ## regenerate docs/conformance.md from the last run of the unit suite
	go run ./internal/conformance/report < $(OUT)/unit.json > docs/conformance.md

$(OUT)/unit.json:
	$(MAKE) test-unit

verify: ## what CI checks beyond the tests: generated files, lint, request counts, kills, recordings, fuzzing
	scripts/verify

bench: ## measure on the emulator; writes its block of docs/performance.md
	$(PLAIN) go run ./internal/azure/bench

fuzz: ## run every fuzz target for FUZZTIME each (default 30s)
	scripts/fuzz $(FUZZTIME)

clean: ## remove what the targets made
	rm -rf bin $(OUT)
