package explain

import "github.com/ebpfdump/ebpfdump/capture"

// rememberedIDs bounds late.
const rememberedIDs = 1 << 12

// userPacket handles what a read returned.
func (s *socket) userPacket(p *capture.Packet) {
	e := s.find(p)
	s.countAnswer(p)
	if p.Receipt.Belied && e != nil {
		e.verdict = keepAll
	}
	if p.Receipt.Peeked {
		s.peek(e, p)
		return
	}
	s.reads++
	if e != nil {
		e.talk.reads(p)
	} else {
		s.talk(p.Direction, p.Src, p.Dst).reads(p)
	}
	s.out.Mapping.Reads++
	s.passOver(e, &p.Receipt.DroppedIDs)
	afar := s.readAfar(p)
	s.countDrops(p)
	brought := s.brought(p)
	switch {
	case brought:
		s.out.Comparison.Reads++
		s.out.Comparison.Bytes += uint64(p.Got())
	case failed(p):
		s.out.Mapping.Errors++
	default:
		s.out.Mapping.Ends++
	}
	s.out.Calls.count(p)
	if p.Receipt.Missing == capture.MissingBeforeTap {
		s.out.Mapping.Before++
		s.out.Comparison.Unknown++
		s.enterRead(p)
		return
	}
	known := false
	if s.stream {
		known = s.readStream(e, p)
	} else if e != nil {
		known = true
		s.readDatagram(e, p)
	}
	switch {
	case known:
		return
	case afar && brought:
		s.out.Comparison.Unknown++
		s.distant++
		return
	case afar:
		return
	}
	s.missed(p)
	if brought {
		s.out.Comparison.Unknown++
	}
	s.enterRead(p)
}

// countDrops counts what was lost before a read. What the queue dropped is only told of a message whose packet
// is known: of others the count has both.
func (s *socket) countDrops(p *capture.Packet) {
	queue := min(p.Receipt.QueueDropped, p.Drops)
	s.out.Losses.Queue += queue
	if rest := p.Drops - queue; s.stream || p.ID != 0 {
		s.out.Losses.Calls += rest
	} else {
		s.out.Losses.QueueOrCalls += rest
	}
}

// missed counts why a read belongs to no packet in the window although it names one.
func (s *socket) missed(p *capture.Packet) {
	switch {
	case p.ID == 0 || p.ID > s.highest:
	case s.ambiguous[p.ID]:
		if s.brought(p) {
			s.unsure++
		}
	case s.open[p.ID] != nil: // of another capture
	default:
		s.out.Losses.Late++
		if s.brought(p) {
			s.distant++
		}
		if len(s.late) < rememberedIDs {
			s.late[p.ID] = true
		}
	}
}

// enterRead adds a read that belongs to no packet in the window as an entry of its own.
func (s *socket) enterRead(p *capture.Packet) {
	e := &entry{
		socket: s, id: p.ID, time: p.Time, direction: p.Direction, src: p.Src, dst: p.Dst,
		verdict: keepAll, delivered: true,
	}
	e.seen[capture.ViewUser] = true
	s.enter(e)
	e.addPart(p, s.reads, 0, 0, p.Got())
}

// brought tells whether a read returned bytes or an empty message: no error, and not the end of a stream.
func (s *socket) brought(p *capture.Packet) bool {
	k, known := capture.KindByName(s.out.Kind)
	return p.Got() > 0 || !failed(p) && !p.Receipt.End && !(known && k.Stream())
}

// peek shows what a call returned and left in the queue. Nothing of it counts as read.
func (s *socket) peek(e *entry, p *capture.Packet) {
	s.out.Mapping.Peeks++
	s.peeks++
	found := false
	if s.stream {
		found = s.peekStream(e, p)
	} else if e != nil {
		usual := s.usual
		from, equal := s.locate(e, p)
		s.usual = usual
		e.peekedAt(p, from, 0, p.Got(), equal)
		found = true
	}
	// Of a packet that the window does not have any more there is nothing to show.
	if found || p.ID != 0 && p.ID <= s.highest {
		return
	}
	lone := &entry{
		socket: s, id: p.ID, time: p.Time, direction: p.Direction, src: p.Src, dst: p.Dst,
		verdict: keepAll, delivered: true, peeked: true,
	}
	lone.seen[capture.ViewUser] = true
	s.enter(lone)
	lone.addPart(p, s.peeks, 0, 0, p.Got())
}

// peekedAt keeps what a peek returned of a packet. Which of its bytes those are is only said if they are equal.
func (e *entry) peekedAt(p *capture.Packet, from, peekFrom, length int, equal bool) {
	e.peeked = true
	if !equal {
		length = 0
	}
	e.addPart(p, e.socket.peeks, from, peekFrom, length)
}

// passOver advances to the packet that was delivered, and marks those before it. dropped
// are those that the receive queue dropped; e is nil if the delivered packet is unknown.
func (s *socket) passOver(e *entry, dropped *capture.IDs) {
	if s.stream || e == nil {
		return
	}
	s.passAfar(e.number, dropped)
	// A packet that was overtaken may be before unpassed already.
	for s.unpassed != nil && s.unpassed.number < e.number {
		s.unpassed.passed = true
		s.unpassed.dropped = has(dropped, s.unpassed.id) && near(s.unpassed.dst, e.dst)
		s.unpassed = s.unpassed.next
	}
}
