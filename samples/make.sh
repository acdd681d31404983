#!/bin/sh
# Records the samples anew, on this kernel. Needs root, Go and clang. Each is
# made in a network namespace of its own, so that only the probe is in it.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
CGO_ENABLED=0 go build -o "$work/ebpfdump" ../cmd/ebpfdump
CGO_ENABLED=0 go build -o "$work/record" ./text/record
clang -O2 -g -Wall -Werror -target bpf -idirafter "/usr/include/$(uname -m)-linux-gnu" -c text/printing.c -o "$work/printing.o"

for kind in raw tcp udp; do
	# The new way: both views of every packet.
	rm -f "$kind.pcapng"
	"$work/ebpfdump" capture --sock "$kind" --probe --isolate -q -o "$kind.pcapng"
	# The old way: a filter and a server that print, and what convert makes of it.
	"$work/record" "$work/printing.o" "$kind" text
	rm -f "text/$kind.pcapng"
	boot=$(awk -v now="$(date +%s.%N)" '{ printf "%.6f", now - $1 }' /proc/uptime)
	(cd text && "$work/ebpfdump" convert -q --boot-time "$boot" "$kind-kernelspace.txt" "$kind-userspace.txt" -o "$kind.pcapng")
	chmod 644 "$kind.pcapng" "text/$kind.pcapng"
done
rm -f both.pcapng
"$work/ebpfdump" capture --sock tcp --echo --probe --isolate --view user,sent,cgroup -q -o both.pcapng
chmod 644 both.pcapng
rm -f layers.pcapng layers.html
"$work/ebpfdump" capture --sock udp --echo --probe --isolate --view all -q -o layers.pcapng
"$work/ebpfdump" explain layers.pcapng --html layers.html
chmod 644 layers.pcapng layers.html
awk -f picture.awk layers.html >layers.svg
rm -f tcp.html
"$work/ebpfdump" explain tcp.pcapng --html tcp.html
chmod 644 tcp.html
