#!/bin/sh
# Lists the interfaces of a capture: number, name, packets, and what they are.
# usage: interfaces.sh FILE.pcapng
set -eu
. "$(dirname "$0")/views.sh"

reading capinfos -I "$file" >"$work/infos"
awk '
	/^Interface #[0-9]+ info:$/ { id = substr($2, 2) + 0; name = about = "" }
	/^ +Name = / { name = $0; sub(/^ +Name = /, "", name) }
	/^ +Description = / { about = $0; sub(/^ +Description = /, "", about) }
	/^ +Number of packets = / { printf "%s  %-12s %6d %-7s  %s\n", id, name, $NF, $NF == 1 ? "packet" : "packets", about }
' "$work/infos"
finish
