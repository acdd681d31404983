#!/bin/sh
# Prints the payload that userspace got: the bytes themselves, on stdout. What it
# only peeked at (MSG_PEEK) comes again with the read that took it.
# usage: payload.sh FILE.pcapng
set -eu
. "$(dirname "$0")/views.sh"
need user "it does not tell what userspace got"

# Beside the view of what was sent, what was read is behind headers of TCP or UDP.
rows frame.len frame.cap_len data.data tcp.payload udp.payload
awk -F'\t' -v absent="$work/absent" '
	BEGIN { for (i = 0; i < 256; i++) octal[sprintf("%02x", i)] = sprintf("\\%03o", i) }
	$2 !~ /:user$/ || $9 ~ /^peeked at / { next }
	{
		missing += $4 - $5
		payload = $7 != "" ? $7 : $8 != "" ? $8 : $6
		for (i = 1; i < length(payload); i += 2) printf "%s", octal[substr(payload, i, 2)]
		print ""
	}
	END { if (missing) print missing >absent }' "$work/rows" |
	while IFS= read -r escaped; do
		# shellcheck disable=SC2059 # the format is what there is to print
		printf "$escaped"
	done
finish
[ ! -e "$work/absent" ] || stop "$name: the file lacks some of what userspace got: $(cat "$work/absent") of its bytes" 1
