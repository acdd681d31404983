# What a newcomer needs: make test. What a developer needs besides: see below.

SHELL = /bin/bash
.DEFAULT_GOAL = build

# The kernel's and the distribution's headers, for make generate: Debian keeps
# asm/types.h in a folder of the host's architecture. The same major version of
# clang makes the same bytes.
CLANG_VERSION = 14
BPF2GO_ENV = BPF2GO_CC=clang BPF2GO_STRIP=llvm-strip \
	BPF2GO_CFLAGS="-O2 -Wall -Werror -mcpu=v2 -idirafter /usr/include/$(shell uname -m)-linux-gnu"

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
# How often each fuzz target runs. Not a time: at the end of a time Go before
# 1.27 sometimes fails a target that found nothing (golang/go#75804).
FUZZTIME = 60000x

# How much make bench measures: packets and calls, captures, and how often.
PACKETS = 200000
CAPTURES = 15
REPEAT = 3

# When a test hangs, it is to be said which: on a busy machine the default is too short. A guest
# ends later than its tests.
TIMEOUT = -timeout 40m
GUEST_TIMEOUT = -timeout 25m

# As root nothing may be skipped: what a test needs is installed or the test fails.
REQUIRE = $(if $(filter 0,$(shell id -u)),1,0)

# Where make install puts things, below DESTDIR if that is set.
PREFIX = /usr/local
DESTDIR =
BINDIR = $(PREFIX)/bin
MANDIR = $(PREFIX)/share/man/man1
BASHDIR = $(PREFIX)/share/bash-completion/completions
ZSHDIR = $(PREFIX)/share/zsh/site-functions
FISHDIR = $(PREFIX)/share/fish/vendor_completions.d
UNITDIR = $(PREFIX)/lib/systemd/system

# The version of a build that git tells nothing of, as from an archive of the sources. What git tells
# goes into the program also where the Go tool does not ask it (-buildvcs=false).
VERSION =
STAMPS = $(if $(VERSION),-X main.release=$(VERSION)) -X main.linkedCommit=$(shell git rev-parse HEAD 2>/dev/null) \
	-X main.linkedTime=$(shell git show -s --format=%cI 2>/dev/null) -X main.linkedChanges=$(if $(shell git status --porcelain -uno 2>/dev/null),yes)

.PHONY: build install uninstall binaries packages check-packages test programs tools lint generate check-generate samples pictures bench bench-peers fuzz kernels objects clean

build: ## builds ./ebpfdump
	CGO_ENABLED=0 go build -ldflags '$(STAMPS)' -o ebpfdump ./cmd/ebpfdump

ebpfdump:
	$(MAKE) build

# So that sudo make install needs no Go, it installs what make build has built. PROGRAM may be one
# for another architecture, and TEXTS is one that runs here.
PROGRAM = ebpfdump
TEXTS = ./$(PROGRAM)
install: $(PROGRAM) ## installs the program, manual pages, completions and a systemd unit below PREFIX
	install -d $(addprefix $(DESTDIR),$(BINDIR) $(MANDIR) $(BASHDIR) $(ZSHDIR) $(FISHDIR) $(UNITDIR))
	install -m 755 $(PROGRAM) $(DESTDIR)$(BINDIR)/ebpfdump
	set -e; for page in $$($(TEXTS) manual --names); do \
		command=$${page#ebpfdump}; $(TEXTS) manual $${command#-} >$(DESTDIR)$(MANDIR)/$$page.1; \
	done
	$(TEXTS) completion bash >$(DESTDIR)$(BASHDIR)/ebpfdump
	$(TEXTS) completion zsh >$(DESTDIR)$(ZSHDIR)/_ebpfdump
	$(TEXTS) completion fish >$(DESTDIR)$(FISHDIR)/ebpfdump.fish
	sed 's|@BINDIR@|$(BINDIR)|' packaging/ebpfdump@.service >$(DESTDIR)$(UNITDIR)/ebpfdump@.service
	chmod 644 $(addprefix $(DESTDIR),$(MANDIR)/ebpfdump*.1 $(BASHDIR)/ebpfdump $(ZSHDIR)/_ebpfdump $(FISHDIR)/ebpfdump.fish $(UNITDIR)/ebpfdump@.service)

uninstall: ## removes what install has installed
	rm -f $(addprefix $(DESTDIR),$(BINDIR)/ebpfdump $(MANDIR)/ebpfdump.1 $(MANDIR)/ebpfdump-*.1 $(BASHDIR)/ebpfdump \
		$(ZSHDIR)/_ebpfdump $(FISHDIR)/ebpfdump.fish $(UNITDIR)/ebpfdump@.service)

# A release has a tag. What has none is called after the time of its commit, in a form that all packages know.
NFPM = github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.0
ARCHITECTURES = amd64 arm64 riscv64
PACKAGE_VERSION = $(or $(VERSION),$(shell git describe --exact-match --tags --match 'v[0-9]*' 2>/dev/null || \
	TZ=UTC git show -s --date=format-local:%Y%m%d%H%M%S --format=v0.0.0-git%cd 2>/dev/null || echo v0.0.0))
HOST = $(shell go env GOHOSTARCH)

binaries: $(sort $(HOST:%=build/linux-%/ebpfdump) $(ARCHITECTURES:%=build/linux-%/ebpfdump)) ## builds static programs for all ARCHITECTURES

build/linux-%/ebpfdump: FORCE
	CGO_ENABLED=0 GOOS=linux GOARCH=$* go build -trimpath -ldflags '-s -w $(STAMPS) -X main.release=$(PACKAGE_VERSION)' -o $@ ./cmd/ebpfdump

packages: binaries build/nfpm ## makes a deb, an rpm and an apk package for all ARCHITECTURES, in build/packages
	@rm -rf build/packages build/stage && mkdir -p build/packages
	set -e; for arch in $(ARCHITECTURES); do \
		$(MAKE) --no-print-directory -o build/linux-$$arch/ebpfdump install DESTDIR=build/stage/$$arch PREFIX=/usr PROGRAM=build/linux-$$arch/ebpfdump \
			TEXTS=build/linux-$(HOST)/ebpfdump; \
		for form in deb rpm apk; do \
			STAGE=build/stage/$$arch GOARCH=$$arch PACKAGE_VERSION=$(PACKAGE_VERSION) \
				build/nfpm package --config packaging/nfpm.yaml --packager $$form --target build/packages; \
		done; \
	done

build/nfpm:
	GOBIN=$(CURDIR)/build go install $(NFPM)

check-packages: packages ## installs the packages and removes them again, in folders, as far as the tools are here
	./.ci/tools .ci/packages
	./packaging/check build/packages $(ARCHITECTURES)


test: tools ## installs what the tests need, and runs them all
	EBPFDUMP_REQUIRE=$(REQUIRE) go test -race -count=1 $(TIMEOUT) ./...

# At the same time, since each has a namespace of its own and waits for most of it.
programs: tools ## installs many servers and clients, and compares what is recorded of each with what was on the wire
	./.ci/tools .ci/programs
	EBPFDUMP_REQUIRE=$(REQUIRE) EBPFDUMP_PROGRAMS=1 go test -count=1 $(TIMEOUT) -parallel 6 -run '^TestPrograms$$' ./cmd/ebpfdump

tools: ## installs from the distribution's packages what is missing
	./.ci/tools

lint: ## gofmt, go vet, staticcheck
	@test -z "$$(gofmt -l .)" || { echo "not as gofmt wants it:"; gofmt -l .; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...

generate: ## makes the BPF objects and their Go files from the C sources
	$(BPF2GO_ENV) go generate ./bpf

# Another clang makes other bytes that do the same: then there is nothing to compare.
check-generate: ## fails if the committed BPF objects are not those of the C sources
	@if clang --version | grep -q 'version $(CLANG_VERSION)\.'; then \
		$(MAKE) generate && git diff --exit-code -- bpf && echo "generated files are up to date"; \
	else \
		echo "NOT CHECKED: the objects were made by clang $(CLANG_VERSION), this is $$(clang --version | head -n 1)"; \
	fi

samples: ## records the samples anew, on this kernel
	./samples/make.sh

# The film has a network of its own, so that nothing but the probe is in it.
pictures: build ## as root: makes README's film, and the picture of a real Wireshark with our profile on a screen that nobody sees
	./.ci/tools .ci/pictures
	@if ldd "$$(command -v wireshark)" | grep libQt6 >/dev/null; then \
		./.ci/tools '/usr/include/*/qt6/QtWidgets/QWidget' qt6-base-dev; \
	else \
		./.ci/tools '/usr/include/*/qt5/QtWidgets/QWidget' qtbase5-dev; \
	fi
	@mkdir -p build/pictures
	CGO_ENABLED=0 go build -o build/film ./samples/pictures/film
	unshare --net sh -c 'ip link set lo up && exec build/film -o samples/film.svg -cast build/pictures/film.cast'
	samples/pictures/wireshark.sh ./ebpfdump samples/layers.pcapng build/pictures
	@if [ -e build/pictures/wireshark.svg ]; then cp build/pictures/wireshark.svg samples/; fi

bench: ## what a packet costs, in the kernel, in the reader and in the writer, and how long a capture takes to begin and to end
	go test -run '^$$' -bench . -benchtime $(PACKETS)x -count $(REPEAT) ./bpf
	go test -run '^$$' -bench 'Flood|Backlog' -benchtime $(PACKETS)x -count $(REPEAT) ./capture
	go test -run '^$$' -bench Forks -benchtime 5x ./capture
	go test -run '^$$' -bench . -benchtime 50000x ./capture/internal/pair
	go test -run '^$$' -bench . -count $(REPEAT) ./convert
	go test -run '^$$' -bench 'Live|Start|Watch' -benchtime $(CAPTURES)x ./cmd/ebpfdump

# PEERS are its options, such as "-rounds 9 -sending 2s"; build/peers -help lists them.
bench-peers: build ## as root: what capturing costs beside tcpdump, dumpcap and a printing filter, into samples/bench; some ten minutes
	./.ci/tools .ci/peers
	CGO_ENABLED=0 go build -o build/record ./samples/text/record
	CGO_ENABLED=0 go build -o build/peers ./samples/bench/peers
	clang -O2 -g -Wall -Werror -target bpf -idirafter /usr/include/$(shell uname -m)-linux-gnu -c samples/text/printing.c -o build/printing.o
	@echo "pairing beside backlogs"
	go test -run '^$$' -bench Backlog -benchtime 50000x ./capture/internal/pair >build/backlog.txt || { cat build/backlog.txt; exit 1; }
	build/peers -backlog build/backlog.txt $(PEERS)

fuzz: ## every fuzz target, FUZZTIME times
	@for package in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			echo "fuzzing $$package $$target"; \
			go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x $$package || exit 1; \
		done; \
	done

# The packages that need nothing but a kernel, under each of KERNELS: a version
# series such as 5.10, or latest. Two guests at a time, since each takes one core.
KERNELS = 5.10 6.1 6.12 6.18 latest
kernels: build/vmrun objects ## boots other kernels under QEMU and runs the tests of bpf, capture and internal/experiment there
	./.ci/tools qemu-system-x86_64 qemu-system-x86
	build/vmrun fetch $(KERNELS)
	@$(MAKE) --no-print-directory -j 2 -k -Otarget $(KERNELS:%=capture-on-%) $(KERNELS:%=views-on-%) $(KERNELS:%=drops-on-%) $(KERNELS:%=bpf-on-%)

# Four guests for each kernel, those of capture first, since they take the longest. The views of hooks and
# interfaces, and those of drops, have one of their own: all tests of capture in one process are more than a
# guest has room for, and on Linux 7.3 so are both together.
VIEWS = ^Test(Cgroup|Wire|Reuseport)
DROPS = ^TestDrop
# Of capture filters each form of offset 0 once: the emulated kernel needs long for each.
SHORTER = ^TestExpression(Joined|Own)$$/^(tcp6|udp|udp6_from_IPv4|icmp|icmp6|raw6|packet-dgram)$$
GUEST = EBPFDUMP_REQUIRE=1 EBPFDUMP_OBJECTS=$(CURDIR)/build/objects CGO_ENABLED=0 go test -count=1 -p 1 $(GUEST_TIMEOUT) \
	-exec "$(CURDIR)/build/vmrun run -kernel $* -timeout 30m -memory 6144 -file $(CURDIR)/build/objects"

capture-on-%:
	@echo "Linux $*"
	@$(GUEST) -skip '$(VIEWS)|$(DROPS)|$(SHORTER)' ./capture

views-on-%:
	@echo "Linux $*"
	@$(GUEST) -run '$(VIEWS)' ./capture

drops-on-%:
	@echo "Linux $*"
	@$(GUEST) -run '$(DROPS)' ./capture

bpf-on-%:
	@echo "Linux $*"
	@$(GUEST) ./bpf ./internal/experiment

survey-kernels: build/vmrun ## surveys each of KERNELS, into samples/survey
	./.ci/tools qemu-system-x86_64 qemu-system-x86
	build/vmrun fetch $(KERNELS)
	./samples/survey/make.sh $(CURDIR)/build/vmrun $(KERNELS)

# The filters of the tests, for guests that have no compiler: each with and
# without BTF, which those of CO-RE cannot do without.
objects:
	@mkdir -p build/objects
	@for source in samples/filters/*.c bpf/testdata/filters/*.c; do \
		for flag in -g -g0; do \
			case $$source$$flag in */core*-g0) continue ;; esac; \
			name=$$(basename $$source .c)$${flag#-g}; \
			clang -O2 -Wall -Werror $$flag -target bpf -mcpu=v2 -idirafter /usr/include/$(shell uname -m)-linux-gnu \
				-c $$source -o build/objects/$$name.o || exit 1; \
		done; \
	done

build/vmrun: FORCE
	CGO_ENABLED=0 go build -o $@ ./cmd/vmrun
FORCE:

clean:
	rm -rf ebpfdump build
