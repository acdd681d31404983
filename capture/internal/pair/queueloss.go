package pair

// QueueLoss tells, delivery by delivery, how many messages the receive queue has
// dropped. It never tells of more than there were; it may tell of them late.
//
// What SO_RXQ_OVFL says with a message is the socket's count of drops at about
// the time when the message entered the queue. UDP counts there what the filter
// drops as well. If the filter has only run on one cpu, that count holds just the
// filter's drops before this message. If it has run on several, a drop of one
// cpu may be counted or not when another one puts a message into the queue; but
// the count cannot hold a drop that the filter decided on after the message was
// received. So many are taken off it, and the next deliveries tell of the rest.
type QueueLoss struct {
	// Filters says that the filter may drop packets, and that these are in the count.
	Filters bool

	drops uint64 // the count with the last delivery
	all   uint64 // of the queue's own drops: told so far

	cpu     uint32  // that the filter ran on
	cpus    int     // 2 for several
	lost    uint64  // packets without a record, each of which the filter may have dropped
	before  uint64  // drops of the filter up to the last delivery
	decided []int64 // times of its drops, from next on those after the last delivery; in order
	next    int
}

// decidedLimit bounds the memory for drops of the filter while nothing is delivered.
const decidedLimit = 1 << 16

// Unrecorded takes how many packets have no record by now, or that nobody knows. It
// must be after the next deliveries: what the records say of it comes later than the losses.
func (l *QueueLoss) Unrecorded(lost uint64, known bool) {
	l.lost = lost
	if !known {
		l.lost = 1 << 62 // it could be any number: nothing more is told
	}
}

// Saw implements Pairer: of what is not paired, the queue's drops are told all the same.
func (l *QueueLoss) Saw(p *Packet, _ int) { l.saw(p) }

// Delivered implements Pairer.
func (l *QueueLoss) Delivered(d *Delivery) Match {
	dropped, _ := l.told(d, 0)
	return Match{Dropped: dropped}
}

// saw takes a packet.
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
		// As if the next delivery were later. That tells of the queue's drops later too.
		l.passed(l.decided[l.next+decidedLimit/2])
	}
	at := len(l.decided)
	l.decided = append(l.decided, p.Time)
	// The ring has the order in which the cpus came for room, and each took the time after that.
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
	// Moving what remains costs as much as it saves until half is gone.
	if l.next > len(l.decided)/2 {
		l.decided = append(l.decided[:0], l.decided[l.next:]...)
		l.next = 0
	}
}

// told is how many messages the queue has dropped before a delivery of which no
// delivery before has told. It is exact if these are just the ones between the
// two. ran is when the filter ran for what was delivered, 0 if that is not known.
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
