package capture

import (
	"sync/atomic"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// After counts the packets that were recorded after the last one that was asked for (Options.Packets),
// and are in no view: of Recorded of the ledger with the same name.
type After struct{ Tap, Ingress, Egress, Drops, Wire, Select uint64 }

// afterLimit is what the collector counts of those.
type afterLimit struct{ tap, ingress, egress, drops, frames, selected afterCount }

// afterCount is one of them.
type afterCount struct{ atomic.Uint64 }

// count counts a record, but no note, which no ledger has among what was recorded.
func (a *afterCount) count(rec *bpf.Record) {
	if !rec.Unwanted {
		a.Add(1)
	}
}

func (l *afterLimit) counts() After {
	return After{
		Tap: l.tap.Load(), Ingress: l.ingress.Load(), Egress: l.egress.Load(),
		Drops: l.drops.Load(), Wire: l.frames.Load(), Select: l.selected.Load(),
	}
}
