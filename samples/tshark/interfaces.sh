#!/bin/sh
# Lists the interfaces of a capture: number, name, packets, and what they are.
# usage: interfaces.sh FILE.pcapng
set -eu
[ $# -eq 1 ] || { echo "usage: $0 FILE.pcapng" >&2; exit 2; }

tshark -r "$1" -T fields -e frame.interface_id -e frame.interface_name -e frame.interface_description 2>/dev/null |
	sort -n | uniq -c |
	awk '{ count = $1; id = $2; name = $3; $1 = $2 = $3 = ""; printf "%s  %-12s %6d packets  %s\n", id, name, count, $0 }'
