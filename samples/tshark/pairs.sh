#!/bin/sh
# Pairs the views by packet id: for every packet that the filter saw, its TCP
# flags, how many bytes the filter saw, and how many the call returned that got
# this packet, or began with it.
# usage: pairs.sh FILE.pcapng
set -eu
[ $# -eq 1 ] || { echo "usage: $0 FILE.pcapng" >&2; exit 2; }

tshark -r "$1" -T fields -E separator='|' -e frame.packet_id -e frame.interface_name -e frame.interface_description \
	-e frame.len -e ip.hdr_len -e tcp.flags.str -e data.len -e frame.comment 2>/dev/null |
	awk -F'|' '
		# The synthetic header was never there: 20 bytes of IPv4, 40 of IPv6.
		# Nor were the 4 bytes of a VLAN tag that is put back into its frame.
		$2 ~ /:kernel$/ {
			order[++n] = $1; flags[$1] = $6
			seen[$1] = $4 - ($3 ~ /is synthetic/ ? ($5 != "" ? $5 : 40) : 0) - ($3 ~ /tag is put back/ && $8 ~ /vlan=[0-9]+ \(tag/ ? 4 : 0)
		}
		$2 ~ /:user$/ { got[$1] = (got[$1] == "" ? "" : got[$1] " + ") ($7 == "" ? 0 : $7); note[$1] = $8 }
		END {
			printf "%6s  %-12s  %12s  %s\n", "packet", "flags", "kernel bytes", "userspace bytes"
			for (i = 1; i <= n; i++) {
				id = order[i]
				line = sprintf("%6s  %-12s  %12s  %s  %s", id, flags[id], seen[id], got[id] == "" ? "-" : got[id], note[id])
				sub(/ +$/, "", line)
				print line
			}
		}'
