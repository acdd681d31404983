package capture

import "github.com/ebpfdump/ebpfdump/bpf"

// untold knows of the packets without a record before a record tells of them, which only the next
// one of the same cpu does: until then the order of packets is not what it seems to be. It belongs
// to the collector's goroutine.
type untold struct {
	byCPU losses // that were told
	told  uint64 // the sum of those
	all   uint64 // that there were when somebody last looked

	counted []uint64 // when somebody looked
	at      int64    // boot time after that
	settles bool     // counted is to be told once everything before at was seen
}

// tells takes the count in a record.
func (u *untold) tells(cpu uint32, count uint64) {
	for int(cpu) >= len(u.byCPU) {
		u.byCPU = append(u.byCPU, 0)
	}
	if count > u.byCPU[cpu] {
		u.told += count - u.byCPU[cpu]
		u.byCPU[cpu] = count
	}
	u.all = max(u.all, u.told)
}

// look counts the losses so far. What is delivered was counted before, if it was lost.
func (u *untold) look(tap *bpf.Tap) {
	into := u.counted
	if u.settles {
		into = nil // which is still needed
	}
	counted, err := tap.LostByCPU(into[:0])
	if err != nil {
		return // the records tell
	}
	u.all = 0
	for _, n := range counted {
		u.all += n
	}
	if u.all > u.told && !u.settles {
		u.counted, u.at, u.settles = counted, bootNow(), true
	}
}

// until says that everything before a time was seen: what had been lost by then comes before what
// follows, whether or not a record tells of it later.
func (u *untold) until(time int64) {
	if !u.settles || time <= u.at {
		return
	}
	u.settles = false
	for cpu, n := range u.counted {
		u.tells(uint32(cpu), n)
	}
}
