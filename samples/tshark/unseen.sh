#!/bin/sh
# Shows the bytes that the kernel showed the filter and that userspace never
# got: whole packets, the headers of those whose payload was delivered, and what
# is left of those that were delivered in part.
# usage: unseen.sh FILE.pcapng
set -eu
. "$(dirname "$0")/views.sh"
need kernel "it does not tell what the filter saw"
need user "it does not tell what userspace got"

rows frame.len frame.cap_len ip.hdr_len tcp.stream tcp.seq_raw tcp.hdr_len tcp.flags.str data.len data.data
unique
# The bytes, a line for each packet.
reading tshark -r "$file" -T jsonraw -j frame >"$work/json"
awk '/"frame_raw": \[/ { getline; gsub(/[^0-9a-f]/, ""); print }' "$work/json" >"$work/bytes"
awk -f "$(dirname "$0")/unseen.awk" "$work/rows" "$work/bytes"
finish
