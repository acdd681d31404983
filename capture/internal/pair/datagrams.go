package pair

import "hash/maphash"

// Datagrams pairs datagrams one to one, for one socket.
//
// Its filter runs in the order in which datagrams enter the receive queue, and the queue drops
// what it has no room for and counts that (SO_RXQ_OVFL). So the n-th delivery, with d drops
// before it, is the (n+d)-th packet of the filter. Drops for other reasons are in the same
// count, and two cpus may change their order between filter and queue, so bytes decide: among
// packets with the delivery's bytes and sender, the one nearest to the expected position is
// taken.
//
// Packets that the ring lost have positions too, but each cpu tells of its losses only with its
// next record, and those of before have been given positions by then. Near a loss only bytes
// count, and several packets with the same bytes cannot be told apart: also not where all but
// one were delivered, since a lost one may have the same bytes as well.
type Datagrams struct {
	// HeaderLen is how many bytes at the beginning of a packet userspace does not get.
	HeaderLen int
	// CountsFiltered says that the queue's count of drops includes packets that the filter
	// drops: only then they have a position in the order.
	CountsFiltered bool
	// Uncounted says that the queue's drops are not known: the next datagram that fits is
	// taken.
	Uncounted bool
	// Adopted says that there are several sockets, and that each may have held messages already
	// when it got its filter.
	Adopted bool
	// Shared says that the packets that were lost may be those of other sockets.
	Shared bool
	// Loss tells the queue's drops from the filter's.
	Loss QueueLoss
	// Room is for what a deep queue holds. Default: one of its own.
	Room *Room

	answers  answers
	waiting  waiting
	sought   sought   // the delivery whose datagram is looked for
	next     int      // position of the next packet
	received int      // deliveries
	matched  bool     // a delivery has been paired
	passed   int      // positions before this one are delivered, or were passed over by a delivery
	unsure   int      // positions before this one are near a loss
	few      fewKinds // of the last packets
	many     kinds    // of those since the first loss, and of what waited then
	// Where it is not known how many positions the losses have, shift is by how much they are
	// off; open says that it is not known since the loss at position loss.
	filters bool // the filter drops packets that have no position
	open    bool
	loss    int
	shift   int
}

const (
	// behind is how many positions before the newest delivered one others may still be
	// delivered, because two cpus changed their order.
	behind = 64
	// nearLoss is how many positions before and after a loss are doubtful: about as many as one
	// cpu records before another one reports its losses.
	nearLoss = 1 << 8
	// around is how many datagrams on either side of the expected one are compared before the
	// index is used, and aroundCut as many for a delivery of which too few bytes are known to
	// use it.
	around    = 8
	aroundCut = behind
)

// Saw implements Pairer.
func (q *Datagrams) Saw(p *Packet, lost int) {
	if q.Uncounted {
		lost = min(lost, 1) // positions do not matter then, and the losses may be another socket's
	}
	q.next += lost
	if lost > 0 {
		q.unsure = q.next + nearLoss
		q.open, q.loss = true, q.next
		q.manyKinds()
	}
	q.Loss.saw(p)
	if p.Answered {
		q.answers.add(p, q.HeaderLen)
	}
	if p.Verdict == 0 && !q.CountsFiltered {
		q.filters = true
		return // it has no position
	}
	keep := p.Len - q.HeaderLen
	if p.Verdict >= 0 {
		// The kernel never trims the transport header.
		keep = min(keep, max(p.Verdict-q.HeaderLen, 0))
	}
	if p.Verdict == 0 {
		keep = -1
	}
	payload := p.Data[min(q.HeaderLen, len(p.Data)):]
	prefix := max(min(keep, len(payload)), 0)
	w := q.waiting.push(q.Room)
	*w = datagram{
		place: q.next, id: p.ID, time: p.Time, ends: q.waiting.known.of(p),
		keep: int32(keep), prefix: int32(prefix), hash: maphash.Bytes(seed, payload[:prefix]),
	}
	copy(w.head[:], payload[:prefix])
	kinds(q.few[:]).sort(w)
	q.many.sort(w)
	q.waiting.index.noted(keep, prefix)
	q.waiting.index.ahead(&q.waiting)
	q.waiting.forget(q.passed - behind)
	q.next++
}

// Delivered implements Pairer.
func (q *Datagrams) Delivered(d *Delivery) Match {
	counted := q.received + int(d.Drops)
	expected := counted + q.shift
	if q.Uncounted {
		expected = q.passed
	}
	if d.Untold {
		q.manyKinds()
	}
	q.sought = seek(d)
	s := &q.sought
	number, found := q.find(s, min(expected, q.next))
	if found && d.Peek {
		w := q.waiting.at(number)
		if q.doubts(s, w, expected) && q.several(s, number) {
			return Match{Src: w.src, Dst: w.dst, Missing: Ambiguous}
		}
		return Match{ID: w.id, Src: w.src, Dst: w.dst, Whole: w.whole(d)}.named()
	}
	q.received++
	if !found {
		if m, belied := q.answers.belied(d); belied {
			m.Dropped, _ = q.Loss.told(d, 0)
			return m.named()
		}
		dropped, _ := q.Loss.told(d, 0)
		if q.passed < q.waiting.forgotten {
			return Match{Missing: Forgotten, Dropped: dropped}
		}
		return Match{
			Missing: NoPacket, Dropped: dropped,
			Before: q.unsure == 0 && !d.Untold && (q.Adopted || q.Uncounted && !q.matched),
		}
	}
	w := q.waiting.at(number)
	m := Match{ID: w.id, Src: w.src, Dst: w.dst}
	dropped, exact := q.Loss.told(d, w.time)
	m.Dropped = dropped
	doubtful := q.doubts(s, w, expected)
	if doubtful && q.several(s, number) {
		m.ID, m.Missing = 0, Ambiguous
	} else {
		m.After, m.Whole = m.ID == 0, w.whole(d)
		if dropped > 0 && exact && !doubtful {
			m.DroppedIDs = q.skipped(w.place)
		}
		if q.open && w.place >= q.loss && !d.Untold && s.whole() && doubtful {
			// There is only one like it, and what follows it in the filter follows it in the queue.
			q.open, q.shift = false, w.place-counted
		}
	}
	q.matched = true
	q.take(number)
	return m.named()
}

// doubts tells whether a datagram is near a loss, or its delivery is, so that its position says
// nothing. Where the positions of the losses are not known, that is so until a datagram comes
// that its bytes alone tell from all others.
func (q *Datagrams) doubts(s *sought, w *datagram, expected int) bool {
	return s.Untold || min(w.place, expected) < q.unsure || q.open && (q.Uncounted || q.Adopted || q.Shared || q.filters)
}

// take marks a datagram as delivered.
func (q *Datagrams) take(number uint64) {
	w := q.waiting.at(number)
	w.gone = true
	q.passed = max(q.passed, w.place+1)
	q.waiting.forget(q.passed - behind)
}

// find looks for the delivery's datagram: near the expected position, and then in the index.
// The nearest one is taken.
func (q *Datagrams) find(s *sought, expected int) (number uint64, found bool) {
	w := &q.waiting
	number = w.find(max(expected, q.passed-behind))
	if number < w.end && w.at(number).brought(s) {
		return number, true
	}
	reach := uint64(around)
	if !s.whole() && len(s.Data) < headLen {
		reach = aroundCut
	}
	if best, ok := q.around(s, number, reach, expected); ok {
		return best, true
	}
	best := -1
	low := q.passed - behind
	w.index.alike(w, s, low, low, func(at uint64) bool {
		if distance := apart(w.at(at).place, expected); best < 0 || distance < best {
			number, best = at, distance
		}
		return true
	})
	return number, best >= 0
}

// around compares the datagrams on both sides of a number.
func (q *Datagrams) around(s *sought, number, reach uint64, expected int) (best uint64, found bool) {
	w := &q.waiting
	up, down := number, number
	for range 2 * reach {
		// The nearer of the next two: of the same distance, the earlier one, because the count of drops may
		// include one that another cpu has counted meanwhile.
		switch {
		case down > w.first && down > number-min(reach, number) && w.at(down-1).place >= q.passed-behind &&
			(up >= min(w.end, number+reach) || apart(w.at(down-1).place, expected) <= apart(w.at(up).place, expected)):
			if down--; w.at(down).brought(s) {
				return down, true
			}
		case up < min(w.end, number+reach):
			if up++; w.at(up - 1).brought(s) {
				return up - 1, true
			}
		default:
			return 0, false
		}
	}
	return 0, false
}

func apart(a, b int) int { return max(a-b, b-a) }

// several tells whether another datagram fits as well, did before it was delivered, or whether
// there are too many to compare them all.
func (q *Datagrams) several(s *sought, number uint64) bool {
	w := &q.waiting
	one := w.at(number)
	if one.again || !s.whole() && (one.begins || len(s.Data) < headLen) {
		return true
	}
	other := false
	low := q.passed - behind
	all := w.index.alike(w, s, low, low, func(at uint64) bool {
		other = at != number
		return !other
	})
	return other || !all
}

// skipped returns the packets between the last delivery and a position that the filter let
// pass.
func (q *Datagrams) skipped(place int) (ids Ranges) {
	w := &q.waiting
	for at := w.find(q.passed); at < w.end && w.at(at).place < place; at++ {
		if one := w.at(at); !one.gone && one.keep >= 0 && one.id != Unwanted {
			ids.Add(one.id)
		}
	}
	return ids
}
