# Keymount: `make help` lists the targets. Programs that a target needs beyond Go, make and a C compiler are installed by
# scripts/need (as root on Debian) or named in one line.

PROGRAMS   := keymount keymount-azure keymount-driver keyvault-emulator
VERSION    ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GIT_COMMIT ?= $(shell git rev-parse HEAD 2>/dev/null)
BUILD_DATE ?= $(shell git log -1 --format=%cI 2>/dev/null)
FUZZTIME   ?= 30s
# How many tests need root and a mount namespace; where root is there, fewer than this is a failure.
ROOT_TESTS := 33
INTEGRATION_ROOT_TESTS := 40
ROOT_KILL_TESTS := 2
CLUSTER_ROOT_TESTS := 4
OUT        := .cache
INTEGRATION := ./test/integration/... ./test/binaries ./charts ./test/e2e/providers/... ./test/e2e/sidecars/... \
	./test/e2e/rig ./test/e2e/run ./test/e2e/cluster ./test/e2e/cluster/internal/...

# Two compile sets only: -race with cgo for tests, and this one for everything else.
PLAIN      := CGO_ENABLED=0 GOFLAGS="$(GOFLAGS) -trimpath -buildvcs=false"
TOOL       := $(PLAIN) go tool -modfile=tools/go.mod
TESTSUM    := go tool -modfile=tools/go.mod gotestsum --format pkgname --hide-summary skipped

.DEFAULT_GOAL := help
.PHONY: help demo build images cluster-up cluster-down e2e test test-unit test-images test-terraform test-kill test-integration test-sanity test-recordings lint generate conformance verify bench bench-check fuzz mutants clean

help: ## list the targets
	@echo "Keymount: secrets from Azure Key Vault as files. Targets:"
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## see it work: emulator, mount, rotation; no root, no Kubernetes
	@PATH="$(CURDIR)/bin:$$PATH" ./examples/demo/demo

build: ## build the programs into bin/
	$(PLAIN) go build -ldflags "-s -w -X main.version=$(VERSION) -X main.gitCommit=$(GIT_COMMIT) -X main.buildDate=$(BUILD_DATE)" -o bin/ $(PROGRAMS:%=./cmd/%)

test: test-unit test-images test-terraform test-integration test-sanity ## run the tests: unit, charts, images, integration with a real API server, CSI sanity

test-unit: ## unit suite with -race; what needs root runs where root is there
	@scripts/need openssl
	@mkdir -p $(OUT)
	@$(TOOL) helm version >/dev/null # compiled here, for minutes at the first time, and not within the tests' time
	$(TESTSUM) --jsonfile $(OUT)/unit.json -- -race -timeout 5m ./...
	@scripts/count-root-tests $(OUT)/unit.json $(ROOT_TESTS)

test-images: ## make the images twice, compare them and read them back
	@mkdir -p $(OUT)
	$(TESTSUM) --jsonfile $(OUT)/images.json --raw-command -- go -C images test -json -race -timeout 5m ./...

test-terraform: ## put the values of examples/terraform through the chart
	@mkdir -p $(OUT)
	$(TESTSUM) --jsonfile $(OUT)/terraform.json --raw-command -- go -C test/terraform test -json -race -timeout 5m ./...

test-kill: ## kill a writer at every system call and at 500 random moments
	@scripts/need strace
	@mkdir -p $(OUT)
	$(TESTSUM) --jsonfile $(OUT)/kill.json -- -race -count=1 -tags killtest -run Kill -timeout 10m ./internal/volume
	@scripts/count-root-tests $(OUT)/kill.json $(ROOT_KILL_TESTS)

test-integration: ## run against a real kube-apiserver and etcd; the first run builds them, some 7 minutes
	@mkdir -p $(OUT)
	@$(PLAIN) go run -tags integration ./test/binaries/build kube-apiserver etcd >/dev/null
	$(TESTSUM) --jsonfile $(OUT)/integration.json -- -race -count=1 -timeout 15m -tags integration $(INTEGRATION)
	@scripts/count-root-tests $(OUT)/integration.json $(INTEGRATION_ROOT_TESTS)

test-sanity: ## run the public CSI suite against the driver, ten processes in a row
	@mkdir -p $(OUT)
	@$(PLAIN) go run -tags integration ./test/binaries/build kube-apiserver etcd >/dev/null
	$(TESTSUM) --jsonfile $(OUT)/sanity.json --raw-command -- go -C test/sanity test -json -race -count=1 -timeout 5m -tags integration ./...
	@scripts/count-root-tests $(OUT)/sanity.json 2

test-recordings: ## compare the emulator and the provider with recorded answers of the service
	go -C test/recordings/pins mod download
	go -C test/recordings/azkeys02 mod download
	cd test/recordings && go test -count=1 -v ./...

lint: ## gofmt, go vet, staticcheck
	@files=$$(gofmt -l .); test -z "$$files" || { echo "not gofmt-ed:" $$files >&2; exit 1; }
	$(PLAIN) go vet -tags killtest,integration ./...
	$(TOOL) staticcheck -tags killtest,integration ./...
	cd tools && $(PLAIN) go vet -tags killtest ./...
	cd test/recordings && $(PLAIN) go vet -tags killtest ./...
	cd test/sanity && $(PLAIN) go vet -tags integration ./...
	cd test/terraform && $(PLAIN) go vet ./...
	cd images && $(PLAIN) go vet ./... && $(PLAIN) go tool -modfile=../tools/go.mod staticcheck ./...
	GOOS=windows $(PLAIN) go vet -tags killtest ./...
	GOOS=darwin $(PLAIN) go vet -tags killtest ./...

generate: ## regenerate what is generated: API types, CRDs, protocol; the charts' schemas, READMEs, golden output and manifests
	cd tools && $(PLAIN) go run ./protogen ../api/provider/v1alpha1/service.proto
	$(TOOL) controller-gen object crd:crdVersions=v1 paths='./api/v1;./api/v1alpha1' output:crd:dir=api/crds
	scripts/charts

conformance: $(OUT)/unit.json $(OUT)/integration.json ## regenerate docs/conformance.md from the last runs of the tests
	cat $(OUT)/unit.json $(OUT)/integration.json | go run ./internal/conformance/report > docs/conformance.md

$(OUT)/unit.json:
	$(MAKE) test-unit

$(OUT)/integration.json:
	$(MAKE) test-integration

verify: ## what CI checks beyond the tests: generated files, lint, request counts, kills, recordings, fuzzing
	scripts/verify

NODEBENCH := $(PLAIN) go test -tags integration -run '^$$' -bench Node -benchtime 1x -count 1 ./test/integration/bench -args

bench: ## measure mounts on the emulator and a node (as root); writes its blocks of docs/performance.md
	@$(PLAIN) go run -tags integration ./test/binaries/build kube-apiserver etcd >/dev/null
	$(PLAIN) go run ./internal/azure/bench
	$(NODEBENCH) -document $(CURDIR)/docs/performance.md

bench-check: ## hold the numbers of requests and allocations to their limits; times do not gate
	@$(PLAIN) go run -tags integration ./test/binaries/build kube-apiserver etcd >/dev/null
	$(PLAIN) go run ./internal/azure/bench --check
	$(NODEBENCH) -check

fuzz: ## run every fuzz target for FUZZTIME each (default 30s)
	scripts/fuzz $(FUZZTIME)

images: ## make the container images, without Docker, into .cache/images
	$(PLAIN) go -C images run . build --out $(CURDIR)/$(OUT)/images $(IMAGE_FLAGS)

cluster-up: build ## start a Kubernetes cluster on this machine, as root; an emulated vault is beside it
	examples/cluster/up

cluster-down: ## stop it; nothing stays
	$(PLAIN) go build -tags integration -o bin/cluster ./test/e2e/cluster
	bin/cluster down

e2e: ## run the scenarios on a cluster of two nodes, as root; then the tests of clusters themselves
	$(PLAIN) go build -tags integration -o $(OUT)/run-e2e ./test/e2e/run # not `go run`, which hands no signal on
	$(OUT)/run-e2e $(E2E_FLAGS)
	$(TESTSUM) --jsonfile $(OUT)/clusters.json -- -race -count=1 -timeout 10m -tags integration ./test/e2e/cluster/clustertest
	@scripts/count-root-tests $(OUT)/clusters.json $(CLUSTER_ROOT_TESTS)

mutants: ## bring defects of upstream's back, one at a time: each must turn its test red; as root, some 10 minutes
	@$(PLAIN) go run -tags integration ./test/binaries/build kube-apiserver etcd >/dev/null
	go run ./test/mutants

clean: ## remove what the targets made
	rm -rf bin $(OUT)
