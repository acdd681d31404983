.PHONY: generate
# Debian keeps asm/types.h in a folder of the host's architecture.
generate: export BPF2GO_CC = clang
generate: export BPF2GO_STRIP = llvm-strip
generate: export BPF2GO_CFLAGS = -O2 -Wall -Werror -mcpu=v2 -idirafter /usr/include/$(shell uname -m)-linux-gnu
generate:
	go generate ./bpf
