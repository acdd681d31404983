# The rows of unseen.sh, and then the bytes of each, become a text. Places and
# sizes count bytes; packets of a TCP socket have a place in their stream.
BEGIN { FS = "\t" }

NR == FNR {
	kernel[NR] = $2 ~ /:kernel$/; user[NR] = $2 ~ /:user$/ && $13 !~ /^peeked at /
	id[NR] = $1; stream[NR] = $2 ~ /^tcp6?:/ && $7 != "" ? $2 "/" $7 : ""
	# The synthetic header was never there: 20 bytes of IPv4, 40 of IPv6, 48 above 64 KiB.
	synthetic[NR] = $3 ~ /header is synthetic/ ? ($6 != "" ? $6 + 0 : $4 > 65575 ? 48 : 40) : 0
	# Nor was a VLAN tag in the frame: its 4 bytes were put back behind the addresses.
	tagged[NR] = kernel[NR] && $3 ~ /tag is put back/ && $13 ~ /vlan=[0-9]+ \(tag/
	size[NR] = user[NR] ? $4 - $5 + $11 : $4 - synthetic[NR] - 4 * tagged[NR]
	sequence[NR] = $8; header[NR] = $9 + 0; syn[NR] = $10 ~ /S/
	data[NR] = $12; comment[NR] = $13
	if (kernel[NR] && $1 != "") packet[$1] = NR
	if ($2 ~ /:drop$/ && $1 != "" && match($13, /dropped by the kernel: [^ ;]+/)) why[$1] = substr($13, RSTART + 23, RLENGTH - 23)
	rows = NR
	next
}

kernel[FNR] {
	bytes[FNR] = substr($0, 2 * synthetic[FNR] + 1)
	if (tagged[FNR]) bytes[FNR] = substr(bytes[FNR], 1, 24) substr(bytes[FNR], 33)
	kept[FNR] = size[FNR]
	if (match(comment[FNR], /verdict=[0-9]+/)) kept[FNR] = least(size[FNR], substr(comment[FNR], RSTART + 8, RLENGTH - 8) + 0)
	if (stream[FNR] != "") place_segment(FNR)
}

END {
	for (i = 1; i <= rows; i++) if (user[i]) take(i, packet[id[i]])
	for (i = 1; i <= rows; i++) if (kernel[i]) tell(i)
	if (loose) printf "%s got what is joined to no packet\n", loose == 1 ? "1 read" : loose " reads"
}

function least(a, b) { return a < b ? a : b }
function most(a, b) { return a > b ? a : b }

# place_segment finds where in its stream a segment begins, and how far it goes.
function place_segment(i, s) {
	s = stream[i]
	if (!(s in start) || syn[i]) start[s] = sequence[i] + syn[i]
	from[i] = (sequence[i] + syn[i] - start[s]) % 4294967296
	if (from[i] > 2147483648) from[i] -= 4294967296
	if (from[i] < -2147483648) from[i] += 4294967296
	to[i] = from[i] + most(kept[i] - header[i], 0)
}

# take joins a read with the packet that it names, or with the stream from there on.
function take(read, i, n, s) {
	if (i == "") {
		loose++
		return
	}
	n = size[read]
	if (stream[i] == "") {
		reads[i]++
		got[i] += n
		taken[i] = taken[i] data[read]
		return
	}
	# Some of it may have come before the tap.
	if (match(comment[read], /packets of its first [0-9]+ bytes/)) n -= substr(comment[read], RSTART + 21, RLENGTH - 27)
	if (n <= 0) return
	s = stream[i]
	if (!(s in at) || at[s] < from[i] || at[s] >= to[i]) {
		at[s] = from[i]
		low[s, ++pieces[s]] = at[s]
	}
	at[s] += n
	high[s, pieces[s]] = at[s]
}

# covered is how many bytes of a segment reads have got, and first where they begin.
function covered(i, s, p, n, a, b) {
	s = stream[i]
	for (p = 1; p <= pieces[s]; p++) {
		a = most(from[i], low[s, p]); b = least(to[i], high[s, p])
		if (a >= b) continue
		if (n == 0) first = header[i] + a - from[i]
		n += b - a
	}
	return n + 0
}

# find is where in a packet the bytes are that its read returned: at the end of
# what the filter kept, or, if a buffer was too small for it, before that.
function find(i, place, hex, at) {
	place = kept[i] - got[i]
	if (place >= 0 && same(substr(bytes[i], 2 * place + 1), taken[i])) return place
	at = 0
	hex = bytes[i]
	while ((place = index(hex, taken[i])) > 0) {
		if ((at + place) % 2) return (at + place - 1) / 2
		at += place
		hex = substr(bytes[i], at + 1)
	}
	return -1
}

# same compares as far as both are in the file.
function same(a, b, n) {
	n = least(length(a), length(b))
	return substr(a, 1, n) == substr(b, 1, n)
}

function tell(i, n) {
	if (stream[i] != "") n = covered(i)
	else n = got[i] + 0
	if (n > 0 && stream[i] == "" && (first = find(i)) < 0)
		show(i, "userspace got other bytes", 0, 0)
	else if (n > 0 && n == size[i])
		show(i, "userspace got every byte", 0, n)
	else if (n > 0 && first + n == size[i])
		show(i, "userspace got what follows these bytes", first, n)
	else if (n > 0)
		show(i, "userspace got " n " of " size[i] " bytes, not these", first, n)
	else if (kept[i] == 0 && size[i] > 0)
		show(i, "the filter dropped it, userspace got none of these bytes", 0, 0)
	else if (id[i] in why)
		show(i, "the kernel dropped it (" why[id[i]] "), userspace got none of these bytes", 0, 0)
	else if (reads[i] > 0)
		show(i, "userspace got a message without bytes", 0, 0)
	else if (stream[i] != "" && size[i] <= header[i])
		show(i, "userspace got none of these bytes", 0, 0)
	else
		show(i, "the file joins no read to it", 0, 0)
}

# show prints a packet's bytes but for n of them, which begin at a place.
function show(i, what, place, n) {
	printf "packet %s: %s\n", id[i] == "" ? "without an id" : id[i], what
	lines(substr(bytes[i], 1, 2 * (n > 0 ? place : size[i])))
	if (n > 0) lines(substr(bytes[i], 2 * (place + n) + 1))
	if (length(bytes[i]) < 2 * size[i]) printf "  not in the file: the last %d of %d bytes\n", size[i] - length(bytes[i]) / 2, size[i]
}

function lines(hex, at) {
	for (at = 1; at <= length(hex); at += 64) printf "  %s\n", substr(hex, at, 64)
}
