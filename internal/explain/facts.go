package explain

import "github.com/ebpfdump/ebpfdump/capture"

// keepAll is the verdict of packets without a statement about it.
const keepAll = -1

// keptBytes is the number of bytes that the socket's filter decided to keep, or keepAll.
func keptBytes(v capture.Verdict) int {
	switch {
	case v.Dropped:
		return 0
	case v.Of > 0:
		return int(min(v.Keep, 1<<30))
	}
	return keepAll
}

// failed tells whether a call returned an error.
func failed(p *capture.Packet) bool {
	return len(p.Data) == 0 && p.Len == 0 && p.Receipt.Errno != 0
}

// has tells whether an id is in a list. Beyond the listed ranges only the last id is
// known, so all up to that one count.
func has(ids *capture.IDs, id uint64) bool {
	beyond := uint64(0)
	for _, r := range ids.Ranges {
		if id >= r[0] && id <= r[1] {
			return true
		}
		beyond = r[1]
	}
	return ids.More > 0 && id > beyond && id <= ids.Last
}
