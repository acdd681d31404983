package capture

import (
	"fmt"
	"sync"
	"time"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/process"
)

// holdersAge is for how long a look at all processes is good, which takes some milliseconds: many sockets
// may have the tap of one capture.
const holdersAge = 500 * time.Millisecond

// mapHolders remembers who has which BPF map open. What it says of a holder is asked again, and of a ring that
// nobody had open it is only believed if the ring was there when all processes were looked at.
var mapHolders struct {
	sync.Mutex
	at   time.Time
	of   map[uint32]process.MapHolder
	all  bool
	none map[uint32]bool // rings that were looked for, and that nobody has open
}

// tapHolder is the process that has a ring open. known is false if that could be one which is not seen.
func tapHolder(ring uint32) (pid int, known bool) {
	h := &mapHolders
	h.Lock()
	defer h.Unlock()
	old := time.Since(h.at) > holdersAge
	if holder, ok := h.of[ring]; ok && !old && holder.Has(ring) {
		return holder.PID, true
	}
	if old || !h.none[ring] {
		if old {
			h.at, h.none = time.Now(), make(map[uint32]bool)
		}
		h.of, h.all = process.MapHolders()
	}
	if holder, ok := h.of[ring]; ok {
		return holder.PID, true
	}
	h.none[ring] = true
	return 0, h.all
}

// otherTap is bpf.OwnFilter.OtherTap, and tells at once of a capture that was killed: its lease ends
// seconds later, but nobody has the ring open any more. One whose process has it open goes on, even if that
// was stopped or kept waiting for longer than the lease lasts. Whoever says whose a tap is asks here.
func otherTap(f *bpf.OwnFilter) (*bpf.OtherTap, int, error) {
	other, err := f.OtherTap()
	if other == nil || err != nil {
		return nil, 0, err
	}
	pid, known := tapHolder(other.Ring)
	if pid != 0 {
		other.Ended = false
	} else if known {
		other.Ended = true
	}
	return other, pid, nil
}

// tapStaysError says that the filter of a socket is the tap of another capture, which stays there.
type tapStaysError struct{ text string }

func (e *tapStaysError) Error() string { return e.text }

// staysOf is the error for a socket of which another capture goes on to record the packets.
func staysOf(own *bpf.OwnFilter, pid int) error {
	whose := ", whose process is not seen from here: end that one first"
	if pid != 0 {
		whose = fmt.Sprintf(", process %d: end that one first (kill -INT %[1]d)", pid)
	}
	return &tapStaysError{fmt.Sprintf("it is that of another capture (%s)%s", wordsOf(own), whose)}
}

// mayReplace tells why the eBPF filter of a socket is not to be replaced: it is the tap of another capture, which
// goes on and would be blind from then on, and could not put back what it took off. If that cannot be found out,
// it is taken for one. The tap of a session's own socket is what the process has there for a filter, like any other.
func mayReplace(own *bpf.OwnFilter) error {
	other, pid, err := otherTap(own)
	switch {
	case err != nil:
		return &tapStaysError{fmt.Sprintf("it is called like the tap of another capture (%s), and whose it is cannot be found out: %v", describeProgram(own), err)}
	case other != nil && other.Leased && !other.Ended:
		return staysOf(own, pid)
	}
	return nil
}
