#!/bin/sh
# Records the sample captures anew, on this kernel. Needs root. Each is made in
# a network namespace of its own, so that only the probe is in it.
set -eu
cd "$(dirname "$0")"
tool=$(mktemp) && trap 'rm -f "$tool"' EXIT
CGO_ENABLED=0 go build -o "$tool" ../cmd/ebpfdump

for kind in raw tcp udp; do
	rm -f "$kind.pcapng"
	"$tool" capture --sock "$kind" --probe --isolate -q -o "$kind.pcapng"
	chmod 644 "$kind.pcapng"
done
