# Every target is what .ci/run calls or what a person calls; `make` lists them.
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
BUILD   := -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
IMAGE   := $(shell sed -n 's/^ *image: *//p' deploy/daemonset.yaml)
TOOL    := go tool -modfile=$(CURDIR)/.ci/tools.mod
LINT    := golangci-lint run --config=$(CURDIR)/.golangci.yml
E2E     := $(patsubst %/go.mod,%,$(wildcard internal/e2e/go.mod))
# One set of flags in internal/e2e, or Kubernetes is built and kept twice.
E2E_GO  := CGO_ENABLED=0 go
# go-nvml declares functions that NVIDIA deprecated; hundreds of warnings say so.
export CGO_CFLAGS ?= -O2 -g -Wno-deprecated-declarations
TESTS   := --include=*_test.go --exclude-dir=.git

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: daemon ## build both programs: the daemon, and its NVML worker, which takes gcc
	CGO_ENABLED=1 go build $(BUILD) -o bin/ ./cmd/gpuvet-nvml

daemon: ## build the static daemon alone, bin/gpuvet
	CGO_ENABLED=0 go build $(BUILD) -o bin/ ./cmd/gpuvet

image: build ## pack the image that deploy/daemonset.yaml names, out/gpuvet-image.tar
	go run ./deploy/image -o out/gpuvet-image.tar -ref $(IMAGE) -files deploy/image/files.txt \
	  -entrypoint /usr/bin/gpuvet -cmd run -env PATH=/usr/bin -label org.opencontainers.image.title=gpuvet \
	  -label org.opencontainers.image.version=$(VERSION) -label org.opencontainers.image.revision=$$(git rev-parse HEAD) \
	  -label 'org.opencontainers.image.licenses=Apache-2.0 AND LGPL-2.1-or-later'

run: $(if $(NVML),fakelib build,daemon) ## watch eight fake GPUs, one of which is lost; NVML=fakelib: through the real bindings
	bin/gpuvet run --standalone --fake-nvml testdata/scenarios/8xh100-lost.yaml $(if $(NVML),--nvml-library out/fakelib/libnvidia-ml.so.1) \
	  --listen 127.0.0.1:9410 --state-dir out/run --log-format text

fakelib: ## build a libnvidia-ml.so.1 that plays scenarios, out/fakelib; takes gcc
	go run ./nvml/fakelib/build -o out/fakelib/libnvidia-ml.so.1

gpu-check: ## hold the real driver to the contract; skipped with the reason where there is no GPU
	go test -count=1 -v -run RealGPU ./nvml/worker

test: ## unit tests with the race detector
	go test -race ./...

journal: ## test reading systemd's journal; takes gcc, libsystemd-dev and systemd-journal-remote
	go test -race -tags journal ./detector/kmsg/journal
	go test -race -tags journal -run=Journal ./cmd/gpuvet

e2e: e2e-build ## end-to-end tests on a real Kubernetes; RUN=Node runs TestNode alone
	cd internal/e2e && $(E2E_GO) test -trimpath -count=1 -timeout=60m $(if $(RUN),-run 'Test$(RUN)') ./...

e2e-build: ## what the end-to-end tests run on; slow when it is cold
	cd internal/e2e && $(E2E_GO) run -trimpath ./build

bench: ## benchmarks of the budgets, with their spread
	@mkdir -p out
	go test -run='^$$' -bench=. -benchmem -count=6 ./... | tee out/bench.txt
	$(TOOL) benchstat out/bench.txt

measure: ## measurements that are too long for CI, for docs/benchmarks.md
	GPUVET_MEASURE=all go test -count=1 -timeout=6h -run='^TestMeasure' -v ./...
	$(if $(E2E),cd $(E2E) && GPUVET_MEASURE=all $(E2E_GO) test -trimpath -count=1 -timeout=6h -run='^TestMeasure' -v ./...)

fuzz: FUZZTIME ?= 30s
fuzz: ## each fuzz test for FUZZTIME (30s)
	@grep -rEo '^func Fuzz[A-Za-z0-9_]+' $(TESTS) . | sed 's|/[^/]*:func | |' | while read -r dir name; do \
	  go test -run='^$$' -fuzz="^$$name$$" -fuzztime=$(FUZZTIME) "$$dir" || exit 1; done

lint: ## all linters, on every module
	$(TOOL) $(LINT) ./...
	$(if $(E2E),PATH="$$(dirname "$$($(TOOL) -n golangci-lint)"):$$PATH"; cd $(E2E) && CGO_ENABLED=0 GOFLAGS=-trimpath $(LINT) ./...)

fmt: ## format the code
	$(TOOL) gofumpt -w .

golden: ## rewrite the expected outputs; review the diff
	@grep -rlE 'flag\.Bool\("update"' $(TESTS) . | xargs -r -n1 dirname | sort -u | xargs -r -I{} go test {} -update

.PHONY: help build daemon image run fakelib gpu-check test journal e2e e2e-build bench measure fuzz lint fmt golden
