package capture

// untold knows of the packets without a record before a record tells of them, which only the next
// one of the same cpu and ledger does: until then the order of packets is not what it seems to be.
// It belongs to the collector's goroutine.
type untold struct {
	ledgers []func(to []uint64) ([]uint64, error) // what each cpu has lost so far
	byCPU   []losses                              // that were told, for each ledger
	told    uint64                                // the sum of those
	all     uint64                                // that there were when somebody last looked

	counted [][]uint64 // when somebody looked, for each ledger
	at      int64      // boot time after that
	settles bool       // counted is to be told once everything before at was seen
}

func newUntold(ledgers ...func(to []uint64) ([]uint64, error)) untold {
	return untold{ledgers: ledgers, byCPU: make([]losses, len(ledgers)), counted: make([][]uint64, len(ledgers))}
}

// tells takes the count in a record.
func (u *untold) tells(ledger int, cpu uint32, count uint64) {
	told := &u.byCPU[ledger]
	for int(cpu) >= len(*told) {
		*told = append(*told, 0)
	}
	if count > (*told)[cpu] {
		u.told += count - (*told)[cpu]
		(*told)[cpu] = count
	}
	u.all = max(u.all, u.told)
}

// look counts the losses so far. What is delivered was counted before, if it was lost.
func (u *untold) look() {
	counted := u.counted
	if u.settles {
		counted = make([][]uint64, len(u.ledgers)) // the one before is still needed
	}
	var all uint64
	for i, lostByCPU := range u.ledgers {
		var err error
		if counted[i], err = lostByCPU(counted[i][:0]); err != nil {
			return // the records tell
		}
		for _, n := range counted[i] {
			all += n
		}
	}
	if u.all = all; u.all > u.told && !u.settles {
		u.at, u.settles = bootNow(), true
	}
}

// until says that everything before a time was seen: what had been lost by then comes before what
// follows, whether or not a record tells of it later.
func (u *untold) until(time int64) {
	if !u.settles || time <= u.at {
		return
	}
	u.settles = false
	for ledger, counted := range u.counted {
		for cpu, n := range counted {
			u.tells(ledger, uint32(cpu), n)
		}
	}
}
