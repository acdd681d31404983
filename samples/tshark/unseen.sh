#!/bin/sh
# Shows the bytes that the kernel showed the filter and that userspace never
# got: whole packets, and the headers of those whose payload was delivered.
# usage: unseen.sh FILE.pcapng
set -eu
[ $# -eq 1 ] || { echo "usage: $0 FILE.pcapng" >&2; exit 2; }

# tshark -x prints one dump a packet and an empty line behind it, in the order
# of the fields: so the n-th dump is the n-th line of the table.
table=$(mktemp) && trap 'rm -f "$table"' EXIT
tshark -r "$1" -T fields -E separator='|' -e frame.packet_id -e frame.interface_name \
	-e frame.interface_description -e ip.hdr_len -e data.data -e frame.comment >"$table" 2>/dev/null
tshark -r "$1" -x 2>/dev/null |
	awk -F'|' '
		NR == FNR {
			id[NR] = $1; name[NR] = $2; user[NR] = $5
			# The synthetic header was never there: 20 bytes of IPv4, 40 of IPv6.
			synthetic[NR] = $3 ~ /is synthetic/ ? ($4 != "" ? $4 : 40) : 0
			# Nor was a VLAN tag in the frame: it was put back behind the addresses.
			tagged[NR] = $3 ~ /tag is put back/ && $6 ~ /vlan=[0-9]+ \(tag/
			next
		}
		FNR == 1 { packet = 1 }
		/^$/ { if (hex != "") { dump[packet++] = hex; hex = "" } next }
		{ split($0, column, "  "); gsub(/ /, "", column[2]); hex = hex column[2] }
		END {
			if (hex != "") dump[packet++] = hex
			for (i = 1; i < packet; i++)
				if (name[i] ~ /:user$/) got[id[i]] = got[id[i]] user[i]
			for (i = 1; i < packet; i++) {
				if (name[i] !~ /:kernel$/) continue
				seen = substr(dump[i], 2 * synthetic[i] + 1)
				if (tagged[i]) seen = substr(seen, 1, 24) substr(seen, 33)
				rest = length(seen) - length(got[id[i]])
				if (got[id[i]] == "" || substr(seen, rest + 1) != got[id[i]])
					what = "userspace got none of these bytes"
				else {
					what = rest == 0 ? "userspace got every byte" : "userspace got what follows these bytes"
					seen = substr(seen, 1, rest)
				}
				printf "packet %s: %s\n", id[i], what
				for (at = 1; at <= length(seen); at += 64) printf "  %s\n", substr(seen, at, 64)
			}
		}' "$table" -
