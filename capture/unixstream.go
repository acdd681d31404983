package capture

// countedStreams gives the bytes that go through unix streams their places: the kernel numbers
// nothing there, so they are counted. A socket has no address either: it gets a number. Those that
// were idle for longest are forgotten.
type countedStreams struct {
	last            uint64 // number that was given
	recent, earlier streamSet
}

// streamSet finds streams by what is known of their sockets.
type streamSet struct {
	byCookie     map[uint64]*countedStream
	byDescriptor map[descriptor]*countedStream
}

// countedStream is where the two directions of a stream have got to.
type countedStream struct {
	number, cookie uint64 // cookie is 0 as long as the kernel has none
	out, in        stream
}

// descriptor is one of a process. born tells the sockets apart that have it one after the other, as
// far as there was news of them.
type descriptor struct {
	pid  uint32
	fd   int32
	born uint64
}

// births counts the unix streams that there was news of.
type births struct {
	count uint64
	of    map[descriptor]uint64 // by those that born is 0 of
}

// note takes news of a new socket.
func (b *births) note(pid uint32, fd int32) {
	if b.of == nil || len(b.of) >= flowsLimit {
		b.of = make(map[descriptor]uint64)
	}
	b.count++
	b.of[descriptor{pid: pid, fd: fd}] = b.count
}

func (b *births) descriptor(pid uint32, fd int32) descriptor {
	d := descriptor{pid: pid, fd: fd}
	d.born = b.of[d]
	return d
}

// of finds the stream of a delivery, or makes it. A socket gets its cookie when somebody asks for
// it, which may be later than its first bytes: until then its descriptor stands for it.
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
	if s.recent.byDescriptor == nil || max(len(s.recent.byCookie), len(s.recent.byDescriptor)) >= flowsLimit/2 {
		s.earlier, s.recent = s.recent, streamSet{make(map[uint64]*countedStream), make(map[descriptor]*countedStream)}
	}
	if d.Cookie != 0 {
		s.recent.byCookie[d.Cookie] = found
	}
	if d.pid != 0 {
		s.recent.byDescriptor[d.descriptor] = found
	}
	return found
}

func (s *streamSet) find(d *delivery) *countedStream {
	if found := s.byCookie[d.Cookie]; found != nil && d.Cookie != 0 {
		return found
	}
	if d.pid == 0 {
		return nil
	}
	found := s.byDescriptor[d.descriptor]
	if found != nil && found.cookie != 0 && d.Cookie != 0 && found.cookie != d.Cookie {
		return nil
	}
	return found
}

// sent sets the place of what was sent.
func (s *countedStreams) sent(p *Packet, d *delivery) {
	if d.err != nil || d.Full == 0 {
		return
	}
	at := s.of(d)
	p.Segment = at.segment(&at.out, &at.in, d.Full)
}

// read sets the place of what was read. What was only peeked at comes again.
func (s *countedStreams) read(p *Packet, d *delivery) {
	if d.err != nil || d.Peek || d.Full == 0 && !d.end {
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
