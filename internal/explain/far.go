package explain

import "github.com/ebpfdump/ebpfdump/capture"

// A packet may wait in its socket's queue while more others come than the window holds. So that its read,
// which names it, is joined to it all the same, what is needed for that is kept of those that have left the
// window unread, without their bytes.

// far is such a packet.
type far struct {
	// entry is the packet itself, where it is shown: it is followed as if it were in the window.
	entry        *entry
	id, number   uint64
	time         int64
	kept, could  uint32 // bytes that the filter has kept of those that userspace can get, and all of those
	talk         *talk
	chosen       bool // it would be shown if it were lost and there were room
	read         bool
	passed       bool
	droppedQueue bool // by the receive queue
}

// afar are those of a kind of socket, in the order of the file.
type afar struct {
	all      []far
	start    int               // index of the first one
	base     uint64            // how many were removed before all[0]
	byID     map[uint64]uint64 // counted from the first one of all
	unpassed uint64            // the first that no later read has overtaken, counted likewise
}

func (a *afar) len() int          { return len(a.all) - a.start }
func (a *afar) at(n uint64) *far  { return &a.all[n-a.base] }
func (a *afar) end() uint64       { return a.base + uint64(len(a.all)) }
func (a *afar) beginning() uint64 { return a.base + uint64(a.start) }

func (a *afar) add(f far) {
	// Compacting only when half is gone makes its cost constant per packet.
	if a.start > len(a.all)/2 && a.start > 64 {
		n := copy(a.all, a.all[a.start:])
		clear(a.all[n:])
		a.base += uint64(a.start)
		a.all, a.start = a.all[:n], 0
	}
	if a.byID == nil {
		a.byID = make(map[uint64]uint64)
	}
	a.byID[f.id] = a.end()
	a.all = append(a.all, f)
}

// pop removes the oldest one.
func (a *afar) pop() far {
	f := a.all[a.start]
	if a.byID[f.id] == a.beginning() {
		delete(a.byID, f.id)
	}
	a.all[a.start] = far{}
	a.start++
	a.unpassed = max(a.unpassed, a.beginning())
	return f
}

// waits tells whether a read may come for a packet that leaves the window, and is certain to be its.
func (s *socket) waits(e *entry) bool {
	switch {
	case e.unfollowed() || s.analysis.ended != 0 || e.id == 0 || s.ambiguous[e.id] || s.twins.apart.Packets > 0:
		return false
	case e.sent || e.first == nil || e.dropAlone() || e.departed || e.chosenOnly() || e.onWireOnly() || e.alone():
		return false
	case e.verdict == 0 || e.delivered || e.got > 0 || e.dropped || e.reason != "":
		return false
	}
	return !e.isTCP || !s.stream || e.end > e.payload && !e.repeated
}

// putAfar keeps a packet that has left the window.
func (s *socket) putAfar(e *entry) {
	a := s.analysis
	limit := a.options.forget
	for s.afar.len() > 0 && !s.stream && s.afar.at(s.afar.beginning()).done() {
		s.giveUp() // the first to come are the first to be read
	}
	could := e.could()
	f := far{
		id: e.id, number: e.number, time: e.time, talk: e.talk, passed: e.passed,
		could: uint32(could), kept: uint32(could),
	}
	if e.verdict > 0 {
		f.kept = uint32(min(max(e.offset0+e.verdict-s.place(e), 0), could))
	}
	choice := &a.options.Choice
	switch {
	case e.shown != nil && (!choice.waits() || a.whole < limit.packets && a.wholeBytes+len(e.data) <= limit.bytes):
		f.entry = e
		a.whole++
		a.wholeBytes += len(e.data)
	default:
		f.chosen = e.shown != nil && choice.late(e, true)
		s.leaves(e)
		e.shown, e.data = nil, nil
	}
	s.afar.add(f)
	for a.afar++; a.afar > limit.afar; {
		most := s
		for _, other := range a.order {
			if other.afar.len() > most.afar.len() {
				most = other
			}
		}
		most.giveUp()
	}
}

// done tells whether a datagram was read, which happens once.
func (f *far) done() bool { return f.read || f.entry != nil && f.entry.delivered }

// giveUp forgets the oldest packet. Whether it is read is not known any more.
func (s *socket) giveUp() {
	f := s.takeAfar()
	switch {
	case f.read:
	case f.entry != nil:
		f.entry.givenUp = true
		s.conclude(f.entry)
	case f.droppedQueue:
		s.settleAfar(&f)
	default:
		s.out.Undelivered.NotKnown.add(f.id, uint64(f.could))
		s.unjoined.add(f.id, uint64(f.could))
		f.talk.out.NotKnown.add(f.id, uint64(f.could))
	}
}

func (s *socket) takeAfar() far {
	f := s.afar.pop()
	s.analysis.afar--
	if f.entry != nil {
		s.analysis.whole--
		s.analysis.wholeBytes -= len(f.entry.data)
	}
	return f
}

// finishAfar counts the fates of all that no read has named.
func (s *socket) finishAfar() {
	if s.out.Losses.Late == 0 {
		// No read names one that was forgotten, so none of those was read either.
		s.out.Undelivered.NotKnown.moveTo(&s.out.Undelivered.AtEnd)
		for _, t := range s.allTalks() {
			t.out.NotKnown.moveTo(&t.out.Unread)
		}
	}
	for s.afar.len() > 0 {
		f := s.takeAfar()
		if f.entry != nil {
			s.conclude(f.entry)
		} else if !f.read {
			s.settleAfar(&f)
		}
	}
}

// settleAfar counts the fate of a packet that no read has named.
func (s *socket) settleAfar(f *far) {
	u, payload := &s.out.Undelivered, uint64(f.could)
	switch {
	case f.droppedQueue:
		u.ByQueue.add(f.id, payload)
		f.talk.out.Dropped.add(f.id, 0)
		f.talk.happens(laneDropped, f.time)
	case f.passed:
		u.PassedOver.add(f.id, payload)
		s.unjoined.add(f.id, payload)
		f.talk.out.Unread.add(f.id, payload)
	default:
		u.AtEnd.add(f.id, payload)
		s.unjoined.add(f.id, payload)
		f.talk.out.Unread.add(f.id, payload)
	}
	if f.chosen && (s.user() || f.kept < f.could) {
		s.analysis.omitted[itemPacket]++
	}
}

// passAfar marks the packets before one that was delivered, as passOver does in the window.
func (s *socket) passAfar(number uint64, dropped *capture.IDs) {
	a := &s.afar
	for ; a.unpassed < a.end() && a.at(a.unpassed).number < number; a.unpassed++ {
		f := a.at(a.unpassed)
		f.passed, f.droppedQueue = true, has(dropped, f.id)
		if f.entry != nil {
			f.entry.passed, f.entry.dropped = f.passed, f.droppedQueue
		}
	}
}

// readAfar counts a read of packets that have left the window, and tells whether there are any.
func (s *socket) readAfar(p *capture.Packet) (found bool) {
	if s.afar.len() == 0 || p.ID == 0 {
		return false
	}
	first := s.readOneAfar(p, p.ID)
	for _, r := range p.Receipt.Fed.Ranges {
		// However large a range is that a file names, only packets that there are cost something.
		for id := max(r[0], p.ID+1); id <= r[1] && id <= s.highest && r[1]-r[0] < uint64(len(s.afar.all)); id++ {
			found = s.readOneAfar(p, id) || found
		}
	}
	return first || found
}

func (s *socket) readOneAfar(p *capture.Packet, id uint64) bool {
	n, ok := s.afar.byID[id]
	if !ok || s.afar.at(n).entry != nil {
		return false
	}
	f := s.afar.at(n)
	again := f.read
	f.read = true
	if again {
		return true
	}
	if s.stream {
		s.out.Delivered.add(f.id, uint64(f.kept))
		return true
	}
	got, kept, u := uint64(p.Got()), uint64(f.kept), &s.out.Undelivered
	s.passAfar(f.number, &p.Receipt.DroppedIDs)
	s.out.Delivered.add(f.id, got)
	s.latencies.add(p.Time - f.time)
	if kept < uint64(f.could) {
		u.Trimmed.add(f.id, uint64(f.could)-kept)
	}
	switch m := &s.out.Mapping; {
	case !s.brought(p):
	case got >= kept:
		m.OneToOne++
	default:
		m.PartOfPacket++
	}
	switch {
	case got >= kept:
	case p.Reception.Cut:
		u.ByBuffer.add(f.id, kept-got)
	default:
		u.InPart.add(f.id, kept-got)
	}
	return true
}
