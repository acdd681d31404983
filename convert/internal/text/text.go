// Package text reads what socket filters and servers print of the packets that
// they get, and pairs the two. It knows no names of files: whoever opens one says
// how an error in it looks.
package text

import (
	"bytes"
	"errors"
	"net/netip"
	"time"

	"github.com/ebpfdump/ebpfdump/capture"
)

// ErrUnknownKind is the reason why a text is not read whose bytes do not tell
// which kind of socket it is about.
var ErrUnknownKind = errors.New("the kind of socket cannot be told from the bytes")

// Options are what a text does not say itself.
type Options struct {
	// Kind is the kind of socket that it is about; nil to find it from the bytes.
	Kind *capture.Kind
	// Src and Dst are the addresses of packets without an IP header, loopback by
	// default. Ports count only where the packet has none itself.
	Src, Dst netip.AddrPort
	// BootTime is when the times of trace text count from, the epoch by default.
	BootTime time.Time
	// Strict ends a text at the first doubtful line. The default is to skip it.
	Strict bool
	// Snaplen is the most bytes that are kept of a packet.
	Snaplen int
	// Error is what is wrong with a line, as an error.
	Error func(line int64, reason error) error
	// Doubt hears of each doubtful line that is skipped.
	Doubt func(line int64, reason error)
}

// What filters and servers print of a packet: a line with its length, a line for
// each byte, an empty line.
const (
	KernelHead = "Kernelspace: Received "
	UserHead   = "Userspace: Received "
	HeadEnd    = " bytes, dumping"
	ByteHead   = "\tbyte["
)

// IsTrace tells from the beginning of a file whether it is trace text.
func IsTrace(head []byte) bool {
	return looksLike(head, KernelHead, "# tracer: ", "bpf_trace_printk: "+ByteHead)
}

// IsServer tells from the beginning of a file whether it is server text.
func IsServer(head []byte) bool { return looksLike(head, UserHead) }

func looksLike(head []byte, texts ...string) bool {
	for _, text := range texts {
		if bytes.Contains(head, []byte(text)) {
			return true
		}
	}
	return false
}
