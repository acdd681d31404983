package pair

// Written pairs datagrams that were recorded elsewhere: of what userspace got only the bytes
// and their order are known, and not when, from whom, and how many the receive queue had
// dropped.
type Written struct {
	datagrams Datagrams
	// checked is the position before which all datagrams were compared with the pending
	// delivery.
	checked int
}

// NewWritten makes a Written for packets of which userspace does not get the first bytes.
func NewWritten(headerLen int) *Written {
	return &Written{datagrams: Datagrams{HeaderLen: headerLen}}
}

// Saw adds a packet.
func (r *Written) Saw(p *Packet) { r.datagrams.Saw(p, 0) }

// Brought finds the packet that brought what was delivered, among those after the previous
// match. If ok is false it can be called again for the same delivery, after more packets were
// seen; the final call also tries those that were passed over.
func (r *Written) Brought(d Delivery, final bool) (m Match, last uint64, ok bool) {
	q := &r.datagrams
	q.sought = seek(&d)
	s := &q.sought
	number, ok := q.after(s, max(r.checked, q.passed))
	r.checked = q.next
	if !ok && final {
		number, ok = q.after(s, q.passed-behind)
	}
	if ok || final {
		r.checked = 0
	}
	if !ok {
		if q.passed < q.waiting.forgotten {
			m.Missing = Forgotten
		}
		return m, 0, false
	}
	w := q.waiting.at(number)
	m = Match{ID: w.id, Src: w.src, Dst: w.dst}
	q.take(number)
	return m, m.ID, true
}

// after finds the first datagram at or after a position that fits a delivery.
func (q *Datagrams) after(s *sought, place int) (number uint64, found bool) {
	w := &q.waiting
	from := w.find(place)
	// Usually the next one fits; if few bytes are known, a few more are compared, too.
	for number = from; number < min(w.end, from+aroundCut); number++ {
		if w.at(number).brought(s) {
			return number, true
		}
	}
	if from+aroundCut >= w.end {
		return 0, false
	}
	found = false
	w.index.alike(w, s, q.passed-behind, place, func(at uint64) bool {
		if !found || at < number {
			number, found = at, true
		}
		return false
	})
	return number, found
}
