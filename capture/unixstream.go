package capture

// countedStreams gives the bytes that go through unix streams their places: the kernel numbers
// nothing there, so they are counted. A socket has no address either: it gets a number. Those that
// were idle for longest are forgotten.
type countedStreams struct {
	last            uint64 // number that was given
	recent, earlier streamSet
}

// streamSet finds streams by what is known of their sockets. A socket gets its cookie when somebody
// asks for it, most never do; its inode it has from the beginning. Of our own sockets, only the cookie
// is known.
type streamSet struct {
	byInode  map[uint32]*countedStream
	byCookie map[uint64]*countedStream
}

// countedStream is where the two directions of a stream have got to.
type countedStream struct {
	number, cookie uint64 // cookie is 0 as long as the kernel has none
	out, in        stream
}

// of finds the stream of a delivery, or makes it.
func (s *countedStreams) of(d *delivery) *countedStream {
	found := s.recent.find(d)
	if found == nil {
		if found = s.earlier.find(d); found == nil {
			s.last++
			found = &countedStream{number: s.last}
		}
	}
	if found.cookie == 0 {
		found.cookie = d.Cookie
	}
	if s.recent.byInode == nil || max(len(s.recent.byCookie), len(s.recent.byInode)) >= flowsLimit/2 {
		s.earlier, s.recent = s.recent, streamSet{make(map[uint32]*countedStream), make(map[uint64]*countedStream)}
	}
	if d.Cookie != 0 {
		s.recent.byCookie[d.Cookie] = found
	}
	if d.inode != 0 {
		s.recent.byInode[d.inode] = found
	}
	return found
}

// find finds the stream of a delivery. The number of an inode comes back in the end, the cookie never.
func (s *streamSet) find(d *delivery) *countedStream {
	if found := s.byCookie[d.Cookie]; found != nil && d.Cookie != 0 {
		return found
	}
	if d.inode == 0 {
		return nil
	}
	found := s.byInode[d.inode]
	if found != nil && found.cookie != 0 && d.Cookie != 0 && found.cookie != d.Cookie {
		return nil
	}
	return found
}

// identified tells whether it is known which socket a delivery is of: not of one that was closed while
// a call was on the way that is older than the capture.
func (d *delivery) identified() bool { return d.Cookie != 0 || d.inode != 0 }

// sent sets the place of what was sent.
func (s *countedStreams) sent(p *Packet, d *delivery) {
	if d.err != nil || d.Full == 0 || !d.identified() {
		return
	}
	at := s.of(d)
	p.Segment = at.segment(&at.out, &at.in, d.Full)
}

// read sets the place of what was read. What was only peeked at comes again.
func (s *countedStreams) read(p *Packet, d *delivery) {
	if d.err != nil || d.Peek || d.Full == 0 && !d.end || !d.identified() {
		return
	}
	at := s.of(d)
	p.Segment = at.segment(&at.in, &at.out, d.Full)
	p.Segment.Ends = d.end
}

// segment is the place of the next bytes of a direction.
func (s *countedStream) segment(way, back *stream, length int) Segment {
	place := Segment{Known: true, Connection: s.number, Seq: way.begin(), Ack: back.begin(), Acks: true}
	*way = stream{place.Seq + uint32(length), true}
	return place
}
