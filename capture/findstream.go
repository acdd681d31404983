package capture

import (
	"bytes"
	"slices"
)

// foundStreams pairs reads of streams whose connection is not known: it is the
// one whose next bytes are those that were read.
type foundStreams struct {
	streams *streams
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

func (f *foundStreams) saw(p *kernelPacket) {
	key := connection{src: p.src, dst: p.dst}
	f.streams.saw(p, 0)
	st := f.streams.open[key]
	if st == nil {
		return
	}
	if n := len(st.segments); n > 0 && st.segments[n-1].id == p.id {
		h, _ := parseTCP(p.data)
		st.segments[n-1].known = bytes.Clone(p.data[min(h.len, len(p.data)):])
		f.unread = f.list(f.unread, key, n == 1)
	}
	if st.last == p.id {
		f.ended = f.list(f.ended, key, true)
	}
	if f.asked {
		f.fresh = append(f.fresh, key)
	}
}

// list appends a connection that is not in a list yet.
func (f *foundStreams) list(list []connection, key connection, absent bool) []connection {
	if !absent {
		return list
	}
	if len(list) >= connectionsLimit {
		list = slices.Delete(list, 0, connectionsLimit/2)
	}
	return append(list, key)
}

func (f *foundStreams) brought(d *delivery, final bool) (Match, bool) {
	d.end = d.full == 0
	key, ok := f.find(d)
	f.asked, f.fresh = !ok && !final, f.fresh[:0]
	if !ok {
		return Match{}, false
	}
	f.used = key
	st := f.streams.open[key]
	m := Match{Src: key.src, Dst: key.dst, Last: st.last}
	if !d.end {
		m.Last = 0
		for _, s := range st.segments {
			if s.from < st.read+int64(d.full) {
				m.Last = max(m.Last, s.id)
			}
		}
	}
	d.from, d.to = key.src, key.dst
	found := f.streams.delivered(d)
	m.ID, m.Comment = found.id, found.comment
	return m, true
}

func (f *foundStreams) find(d *delivery) (connection, bool) {
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
	if d.end {
		f.ended = slices.DeleteFunc(f.ended, func(key connection) bool {
			st := f.streams.open[key]
			return st == nil || st.last == 0
		})
		return first(f.ended, fits)
	}
	f.unread = slices.DeleteFunc(f.unread, func(key connection) bool {
		st := f.streams.open[key]
		return st == nil || len(st.segments) == 0
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
func (st *stream) continues(d *delivery) bool {
	if d.end {
		return st.last != 0 && st.read >= st.end
	}
	from, to := st.read, st.read+int64(d.full)
	if to > st.end {
		return false
	}
	compared := int64(0)
	for _, s := range st.segments {
		low, high := max(from, s.from), min(to, s.from+int64(len(s.known)), from+int64(len(d.data)))
		if low >= high {
			continue
		}
		if !bytes.Equal(s.known[low-s.from:high-s.from], d.data[low-from:high-from]) {
			return false
		}
		compared += high - low
	}
	return compared > 0
}
