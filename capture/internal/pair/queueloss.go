package pair

// QueueLoss reports, with each delivery, how many messages the receive queue has dropped. It
// never reports more than there were; it may report them late.
//
// SO_RXQ_OVFL of a message is the socket's count of drops at about the time when the message
// entered the queue. For UDP it includes what the filter drops. If the filter has only run on
// one cpu, that count includes exactly the filter's drops before this message. If it has run on
// several, a drop on one cpu may or may not be counted when another cpu puts a message into the
// queue; but the count cannot include a drop that the filter decided on after the message was
// received. So all drops up to then are subtracted, and the next deliveries report the rest.
type QueueLoss struct {
	// Filters says that the filter may drop packets, and that these are in the count.
	Filters bool

	drops uint64 // the count of the last delivery
	all   uint64 // of the queue's own drops: reported so far

	cpu     uint32  // on which the filter ran
	cpus    int     // 2 for several
	lost    uint64  // packets without a record, each of which the filter may have dropped
	before  uint64  // drops of the filter up to the last delivery
	decided []int64 // times of its drops, in order; from next on, those after the last delivery
	next    int
}

// decidedLimit bounds the memory for drops of the filter while nothing is delivered.
const decidedLimit = 1 << 16

// Unrecorded sets how many packets have no record so far; known is false if that is not known.
// It must be called after the deliveries that follow: the records report losses later than they
// happen.
func (l *QueueLoss) Unrecorded(lost uint64, known bool) {
	l.lost = lost
	if !known {
		l.lost = 1 << 62 // it could be any number: no more drops are reported
	}
}

// Saw implements Pairer: for packets that are not paired, the queue's drops are still reported.
func (l *QueueLoss) Saw(p *Packet, _ int) { l.saw(p) }

// Delivered implements Pairer.
func (l *QueueLoss) Delivered(d *Delivery) Match {
	dropped, _ := l.told(d, 0)
	return Match{Dropped: dropped}
}

// saw adds a packet.
func (l *QueueLoss) saw(p *Packet) {
	if !l.Filters {
		return
	}
	if l.cpus == 0 || l.cpu != p.CPU {
		l.cpus = min(l.cpus+1, 2)
	}
	l.cpu = p.CPU
	if p.Verdict != 0 {
		return
	}
	if len(l.decided)-l.next >= decidedLimit {
		// As if the next delivery were later, so that the queue's drops are reported later,
		// too.
		l.passed(l.decided[l.next+decidedLimit/2])
	}
	at := len(l.decided)
	l.decided = append(l.decided, p.Time)
	// In the ring, records are in the order in which the cpus reserved room, and each read the
	// clock after that.
	for ; at > l.next && l.decided[at-1] > p.Time; at-- {
		l.decided[at-1], l.decided[at] = l.decided[at], l.decided[at-1]
	}
}

// passed notes that the filter's drops up to a time may be in the count.
func (l *QueueLoss) passed(until int64) {
	for l.next < len(l.decided) && l.decided[l.next] <= until {
		l.next++
		l.before++
	}
	// Compacting only when half is gone makes its cost constant per drop.
	if l.next > len(l.decided)/2 {
		l.decided = append(l.decided[:0], l.decided[l.next:]...)
		l.next = 0
	}
}

// told returns how many messages the queue has dropped before a delivery, without those that
// earlier deliveries reported. It is exact if all of them were dropped between the two
// deliveries. ran is when the filter ran for the delivered packet, 0 if that is not known.
func (l *QueueLoss) told(d *Delivery, ran int64) (dropped uint64, exact bool) {
	l.drops = max(l.drops, d.Drops)
	exact = true
	if l.Filters {
		exact = ran != 0 && l.cpus < 2 && l.lost == 0
		if exact {
			l.passed(ran)
		} else {
			l.passed(d.Time)
		}
	}
	if own := l.drops - min(l.drops, l.before+l.lost); own > l.all {
		dropped, l.all = own-l.all, own
	}
	return dropped, exact
}
