#!/bin/sh
# Prints the payload that userspace got: the bytes themselves, on stdout.
# usage: payload.sh FILE.pcapng
set -eu
[ $# -eq 1 ] || { echo "usage: $0 FILE.pcapng" >&2; exit 2; }

tshark -r "$1" -Y 'frame.interface_name contains ":user"' -T fields -e data.data 2>/dev/null |
	awk 'BEGIN { for (i = 0; i < 256; i++) octal[sprintf("%02x", i)] = sprintf("\\%03o", i) }
		{ for (i = 1; i < length($0); i += 2) printf "%s", octal[substr($0, i, 2)]; print "" }' |
	while IFS= read -r escaped; do
		# shellcheck disable=SC2059 # the format is what there is to print
		printf "$escaped"
	done
