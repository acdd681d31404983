#!/bin/sh
# Pairs the views by packet id: for every packet that the filter saw, its TCP
# flags, how many bytes the filter saw, and how many the calls returned that got
# this packet, or began with it. What a call only peeked at (MSG_PEEK) is not
# counted: the read that takes it comes later.
# usage: pairs.sh FILE.pcapng
set -eu
. "$(dirname "$0")/views.sh"
need kernel "there is nothing to pair"
need user "it does not tell what userspace got"

rows frame.len frame.cap_len ip.hdr_len tcp.flags.str data.len
unique
awk -F'\t' '
	# The synthetic header was never there: 20 bytes of IPv4, 40 of IPv6, 48 above 64 KiB.
	# Nor were the 4 bytes of a VLAN tag that is put back into its frame.
	$2 ~ /:kernel$/ {
		order[++n] = $1; flags[n] = $7; at[$1] = n
		seen[n] = $4 - ($3 ~ /header is synthetic/ ? ($6 != "" ? $6 : $4 > 65575 ? 48 : 40) : 0) - ($3 ~ /tag is put back/ && $9 ~ /vlan=[0-9]+ \(tag/ ? 4 : 0)
	}
	$2 ~ /:user$/ && $9 ~ /^peeked at / { peeks[$1]++; next }
	$2 ~ /:user$/ { reads[$1]++ }
	$2 ~ /:user$/ && $1 != "" {
		# What is not in the file counts too.
		got[$1] = (got[$1] == "" ? "" : got[$1] " + ") ($4 - $5 + $8)
		note[$1] = note[$1] (note[$1] == "" || $9 == "" ? "" : "; ") $9
		# A read of a stream has the id of its first packet, and names the others; where
		# captures were put together, by the ids that they had before.
		if ($9 ~ /^read from packets /) {
			count = split(substr($9, 19), ranges, ", ")
			if (ranges[1] + 0 != $1) next
			for (i = 1; i <= count; i++) {
				split(ranges[i], range, "-")
				for (id = range[1] + 0; id <= (range[2] == "" ? range[1] : range[2]) + 0 && id - range[1] < 1e6; id++)
					if (id != $1) with[id] = with[id] (with[id] == "" ? "with " : ", ") $1
			}
		}
	}
	END {
		printf "%6s  %-12s  %12s  %s\n", "packet", "flags", "kernel bytes", "userspace bytes"
		for (i = 1; i <= n; i++) {
			id = order[i]
			bytes = id in got ? got[id] : "-"
			if (id in with) bytes = id in got ? got[id] " + " with[id] : with[id]
			if (id in peeks) note[id] = note[id] (note[id] == "" ? "" : "; ") "peeked at " (peeks[id] == 1 ? "once" : peeks[id] " times")
			line = sprintf("%6s  %-12s  %12s  %s  %s", id == "" ? "?" : id, flags[i], seen[i], bytes, note[id])
			gsub(/[[:cntrl:]]/, ".", line)
			sub(/ +$/, "", line)
			print line
		}
		for (id in reads) if (id == "" || !(id in at)) loose += reads[id]
		if (loose) printf "%s got what is joined to no packet\n", loose == 1 ? "1 read" : loose " reads"
	}' "$work/rows"
finish
