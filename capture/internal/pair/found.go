package pair

import (
	"bytes"
	"slices"
)

// Found pairs reads of streams whose connection is not known: it is the one whose
// next bytes are those that were read.
type Found struct {
	streams *Streams
	used    connection // by the last read
	// unread may have bytes that userspace has not got, ended an end that it has
	// not got. Oldest first.
	unread, ended []connection
	// fresh are the connections with new packets since asked was set: for the
	// read that is being asked for, all others have been looked at.
	fresh []connection
	asked bool
}

// connectionsLimit bounds the memory for connections that nobody reads.
const connectionsLimit = 1 << 12

// NewFound makes a Found that has seen nothing.
func NewFound() *Found {
	streams := NewStreams()
	streams.keepBytes = true
	return &Found{streams: streams}
}

// Saw notes a packet.
func (f *Found) Saw(p *Packet) {
	key := connection{src: p.Src, dst: p.Dst}
	before := 0
	if st := f.streams.open[key]; st != nil {
		before = st.segments.len()
	}
	f.streams.Saw(p, 0)
	st := f.streams.open[key]
	if st == nil {
		return
	}
	if st.segments.len() > before {
		f.unread = f.list(f.unread, key, before == 0)
	}
	if st.last == p.ID {
		f.ended = f.list(f.ended, key, true)
	}
	if f.asked {
		f.fresh = append(f.fresh, key)
	}
}

// list appends a connection that is not in a list yet.
func (f *Found) list(list []connection, key connection, absent bool) []connection {
	if !absent {
		return list
	}
	if len(list) >= connectionsLimit {
		list = slices.Delete(list, 0, connectionsLimit/2)
	}
	return append(list, key)
}

// Brought finds the packets that brought what was delivered, and the last of them.
// When it is not ok it can be asked again for the same delivery, after more packets
// were seen; final says that it will not be.
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
	return m, last, true
}

func (f *Found) find(d *Delivery) (connection, bool) {
	fits := func(key connection) bool {
		st := f.streams.open[key]
		return st != nil && st.continues(d)
	}
	if f.asked {
		return first(f.fresh, fits)
	}
	if fits(f.used) {
		return f.used, true
	}
	if d.Over {
		f.ended = slices.DeleteFunc(f.ended, func(key connection) bool {
			st := f.streams.open[key]
			return st == nil || st.last == 0
		})
		return first(f.ended, fits)
	}
	f.unread = slices.DeleteFunc(f.unread, func(key connection) bool {
		st := f.streams.open[key]
		return st == nil || st.segments.len() == 0
	})
	return first(f.unread, fits)
}

func first(keys []connection, fits func(connection) bool) (connection, bool) {
	if i := slices.IndexFunc(keys, fits); i >= 0 {
		return keys[i], true
	}
	return connection{}, false
}

// continues tells whether the bytes of a read are the next ones of the stream,
// as far as both are known.
func (st *stream) continues(d *Delivery) bool {
	if d.Over {
		return st.last != 0 && st.read >= st.end
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
