package capture

import (
	"sync"
	"time"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/process"
)

// holdersAge is how old an answer may be. A look at all processes takes some milliseconds, and many
// sockets may have the tap of one capture.
const holdersAge = 500 * time.Millisecond

// mapHolders remembers who has which BPF map open.
var mapHolders struct {
	sync.Mutex
	at  time.Time
	of  map[uint32]int
	all bool
}

// tapHolder is the process that has a ring open. known is false if that could be one which is not seen.
func tapHolder(ring uint32) (pid int, known bool) {
	h := &mapHolders
	h.Lock()
	defer h.Unlock()
	if time.Since(h.at) > holdersAge {
		h.of, h.all = process.MapHolders()
		h.at = time.Now()
	}
	pid = h.of[ring]
	return pid, pid != 0 || h.all
}

// otherTap is bpf.OwnFilter.OtherTap, and tells at once of a capture that was killed: its lease ends
// seconds later, but nobody has the ring open any more.
func otherTap(f *bpf.OwnFilter) (*bpf.OtherTap, int, error) {
	other, err := f.OtherTap()
	if other == nil || err != nil {
		return nil, 0, err
	}
	pid, known := tapHolder(other.Ring)
	if known && pid == 0 {
		other.Ended = true
	}
	return other, pid, nil
}
