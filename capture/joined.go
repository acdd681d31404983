package capture

import "bytes"

// joined finds out where in a stream a process reads, when the tap came in the
// middle: what it reads first may have been in the receive queue before. It
// keeps the first bytes that the tap saw until a read shows them.
type joined struct {
	bytes []byte // of the stream, from offset 0 on, without a gap
	found bool
	base  int64 // offset of the byte at delivery.position 0
}

// joinedLimit bounds the bytes that are kept of one stream. A process that has
// more in its queue will be found to read from offset 0.
const joinedLimit = 256 << 10

// overlap is the least number of bytes in which the end of a read and the
// beginning of what the tap saw must agree, unless one of them is over before.
const overlap = 8

func (j *joined) keep(from int64, payload []byte) {
	known := int64(0)
	if j != nil {
		known = int64(len(j.bytes))
	}
	if j == nil || j.found || known >= joinedLimit || from > known || from+int64(len(payload)) <= known {
		return
	}
	j.bytes = append(j.bytes, payload[known-from:]...)
}

// find tells at which offset of the stream a read begins, which is negative for
// bytes that the tap has not seen.
func (j *joined) find(data []byte) (offset int64, ok bool) {
	for n := min(len(data), len(j.bytes)); n > 0; n-- {
		whole := n == len(data) || n == len(j.bytes)
		if !whole && n < overlap {
			break
		}
		if bytes.Equal(data[len(data)-n:], j.bytes[:n]) {
			return int64(n - len(data)), true
		}
	}
	if at := bytes.Index(j.bytes, data); at >= 0 && len(data) >= overlap {
		return int64(at), true
	}
	return 0, false
}

// seek moves to where a delivery begins. The kernel counts what the process has
// read since it is followed, so what was lost on the way to here does no harm.
func (st *stream) seek(d *delivery) (ok bool) {
	j := st.joined
	if j == nil {
		st.read = d.position
		return true
	}
	if !j.found {
		at, ok := j.find(d.data)
		if !ok && len(j.bytes) < joinedLimit {
			return false
		}
		*j = joined{found: true, base: at - d.position}
	}
	st.read = j.base + d.position
	return true
}
