package pair

import (
	"bytes"
	"hash/maphash"
	"slices"
)

// Found pairs reads of streams whose connection is not known: it is the one whose next bytes
// are those that were read.
type Found struct {
	streams *Streams
	used    connection // by the last read
	fronts  fronts
	// ready are connections of which userspace has read everything but the end, oldest first.
	ready []ended
	// fresh are the connections with new packets since asked was set: for the pending read, all
	// others have been tried.
	fresh []connection
	asked bool
}

// ended is an entry of ready. It is stale if the connection has another stream by now, or none.
type ended struct {
	key    connection
	stream *stream
}

// endedRoom is how many entries of ready there may be beside one per connection before stale ones
// are removed.
const endedRoom = 64

// NewFound makes an empty Found.
func NewFound() *Found {
	streams := NewStreams()
	streams.keepBytes = true
	return &Found{streams: streams, fronts: fronts{streams: streams, lists: make(map[front][]listed)}}
}

// Saw adds a packet.
func (f *Found) Saw(p *Packet) {
	key := connection{src: p.Src, dst: p.Dst}
	f.streams.Saw(p, 0)
	f.changed(key)
	if f.asked {
		f.fresh = append(f.fresh, key)
	}
}

// changed notes that a connection may have something new to read.
func (f *Found) changed(key connection) {
	if st := f.streams.open[key]; st != nil {
		f.fronts.put(key, st)
		if st.atEnd() && !st.ready {
			st.ready = true
			f.ready = append(f.ready, ended{key, st})
		}
	}
	f.tidy()
}

// tidy removes stale entries once they are many: also where nobody reads, memory is bounded by
// the connections that are kept. Its cost per entry is that of inserting it.
func (f *Found) tidy() {
	kept := len(f.streams.open)
	if f.fronts.entries > frontsRoom*(kept+frontsTried) {
		f.fronts.tidy()
	}
	if len(f.ready) > 2*(kept+endedRoom) {
		f.ready = slices.DeleteFunc(f.ready, func(e ended) bool { return f.streams.open[e.key] != e.stream })
	}
}

// Brought finds the packets that brought what was delivered, and the last of them. If ok is
// false it can be called again for the same delivery, after more packets were seen; final says
// that it will not be.
func (f *Found) Brought(d Delivery, final bool) (m Match, last uint64, ok bool) {
	d.Over = d.Full == 0
	key, ok := f.find(&d)
	f.asked, f.fresh = !ok && !final, f.fresh[:0]
	if !ok {
		return Match{}, 0, false
	}
	f.used = key
	st := f.streams.open[key]
	if d.Over {
		last = st.last
	} else {
		st.segments.eachBefore(st.read+int64(d.Full), func(s *segment) { last = max(last, s.id) })
	}
	d.From, d.To = key.src, key.dst
	m = f.streams.Delivered(&d)
	m.Src, m.Dst = key.src, key.dst
	f.changed(key)
	return m, last, true
}

func (f *Found) find(d *Delivery) (found connection, ok bool) {
	fits := func(key connection) bool {
		st := f.streams.open[key]
		if st != nil && st.continues(d) {
			found, ok = key, true
		}
		return ok
	}
	switch {
	case f.asked:
		for _, key := range f.fresh {
			if fits(key) {
				break
			}
		}
	case fits(f.used):
	case d.Over:
		for len(f.ready) > 0 && (f.streams.open[f.ready[0].key] != f.ready[0].stream || !fits(f.ready[0].key)) {
			f.ready[0].stream.ready = false
			f.ready = f.ready[1:]
		}
	default:
		f.fronts.each(d.Data, fits)
	}
	return found, ok
}

// continues tells whether the bytes of a read are the next ones of the stream, as far as both
// are known.
func (st *stream) continues(d *Delivery) bool {
	if d.Over {
		return st.atEnd()
	}
	from, to := st.read, st.read+int64(d.Full)
	if to > st.end {
		return false
	}
	compared, same := int64(0), true
	st.segments.eachBefore(to, func(s *segment) {
		low, high := max(from, s.from), min(to, s.from+int64(len(s.known)), from+int64(len(d.Data)))
		if same && low < high {
			same = bytes.Equal(s.known[low-s.from:high-s.from], d.Data[low-from:high-from])
			compared += high - low
		}
	})
	return same && compared > 0
}

// atEnd tells whether userspace has read all of the stream but its end.
func (st *stream) atEnd() bool { return st.last != 0 && st.read >= st.end }

// fronts finds connections by the next bytes that userspace gets from them. Each is listed
// under its first 1, 4, 16 ... bytes, as far as they are known: a read is looked up under as
// many as it has, and fewer.
type fronts struct {
	streams *Streams
	lists   map[front][]listed
	entries int    // in all lists
	last    uint64 // version
}

// front is the key of a list: a hash of some first bytes, and whether more of the connection
// are known, so that it is also listed under more.
type front struct {
	hash uint64
	size int
	more bool
}

// listed is an entry of a list. It is stale if the stream of the connection has another version.
type listed struct {
	key     connection
	version uint64
}

// frontSizes are the numbers of bytes that connections are listed under.
var frontSizes = [...]int{1, 4, 16, 64, 256}

const (
	// frontsTried bounds how many connections with the same next bytes are tried.
	frontsTried = 64
	// frontsRoom is how many entries there may be per connection before stale ones are removed.
	frontsRoom = 4 * len(frontSizes)
)

// put lists a connection by its next bytes.
func (f *fronts) put(key connection, st *stream) {
	var room [256]byte
	known := st.front(room[:0])
	f.last++
	st.listed = f.last
	for i, size := range frontSizes {
		if size > len(known) {
			break
		}
		more := i+1 < len(frontSizes) && frontSizes[i+1] <= len(known)
		at := front{maphash.Bytes(seed, known[:size]), size, more}
		f.lists[at] = append(f.lists[at], listed{key, f.last})
		f.entries++
	}
}

// tidy removes all stale entries.
func (f *fronts) tidy() {
	f.entries = 0
	for at, list := range f.lists {
		kept := list[:0]
		for _, entry := range list {
			if f.current(entry) {
				kept = append(kept, entry)
			}
		}
		f.entries += len(kept)
		if f.lists[at] = kept; len(kept) == 0 {
			delete(f.lists, at)
		}
	}
}

// each calls fits with connections that may have these bytes next, until it returns true.
func (f *fronts) each(data []byte, fits func(connection) bool) {
	largest := len(frontSizes) - 1
	for largest >= 0 && frontSizes[largest] > len(data) {
		largest--
	}
	for i := largest; i >= 0; i-- {
		hash := maphash.Bytes(seed, data[:frontSizes[i]])
		for _, more := range []bool{true, false} {
			if more && i < largest {
				continue // it was listed under more of the read's bytes
			}
			if f.walk(front{hash, frontSizes[i], more}, fits) {
				return
			}
		}
	}
}

// walk calls fits with the entries of a list, and removes stale ones on its way.
func (f *fronts) walk(at front, fits func(connection) bool) (found bool) {
	list := f.lists[at]
	seen, tried := 0, 0
	for ; seen < len(list) && tried < frontsTried && !found; seen++ {
		entry := list[seen]
		if !f.current(entry) {
			f.entries--
			continue
		}
		list[tried] = entry
		tried++
		found = fits(entry.key)
	}
	// The tried entries move up to those that remain.
	copy(list[seen-tried:seen], list[:tried])
	if list = list[seen-tried:]; len(list) == 0 {
		delete(f.lists, at)
	} else {
		f.lists[at] = list
	}
	return found
}

// current tells whether an entry is not stale.
func (f *fronts) current(entry listed) bool {
	st := f.streams.open[entry.key]
	return st != nil && st.listed == entry.version
}

// front appends the next bytes of a stream, as far as they are known and there is room.
func (st *stream) front(to []byte) []byte {
	st.segments.eachBefore(st.read+int64(cap(to)), func(s *segment) {
		at := st.read + int64(len(to))
		if known := s.from + int64(len(s.known)); s.from <= at && at < known {
			to = append(to, s.known[at-s.from:min(known-s.from, at-s.from+int64(cap(to)-len(to)))]...)
		}
	})
	return to
}
