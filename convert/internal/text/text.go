// Package text reads the text dumps of socket filters and servers, and pairs the two. It
// knows no file names: Options.Error turns a line and a reason into an error.
package text

import (
	"bytes"
	"errors"
	"net/netip"
	"time"

	"github.com/ebpfdump/ebpfdump/capture"
)

// ErrUnknownKind is the error for a text from which the kind of socket cannot be
// inferred.
var ErrUnknownKind = errors.New("the kind of socket cannot be told from the bytes")

// Options supply what a text does not say itself.
type Options struct {
	// Kind is the kind of socket that the text came from; nil to infer it from the bytes.
	Kind *capture.Kind
	// Src and Dst are the addresses of packets without an IP header, loopback by
	// default. Ports count only where the packet has none itself.
	Src, Dst netip.AddrPort
	// BootTime is when the times of trace text count from, the epoch by default.
	BootTime time.Time
	// Strict ends a text at the first doubtful line. The default is to skip it.
	Strict bool
	// Snaplen limits the bytes that are kept of a packet.
	Snaplen int
	// Error makes the error for a line.
	Error func(line int64, reason error) error
	// Doubt is called for each doubtful line that is skipped.
	Doubt func(line int64, reason error)
}

// The dump of a packet is a line with its length, a line for each byte, and an empty
// line.
const (
	KernelHead = "Kernelspace: Received "
	UserHead   = "Userspace: Received "
	HeadEnd    = " bytes, dumping"
	ByteHead   = "\tbyte["
)

// IsTrace tells from the beginning of a file whether it is trace text.
func IsTrace(head []byte) bool {
	return looksLike(head, KernelHead, "bpf_trace_printk: "+ByteHead)
}

// IsTracer tells whether the beginning of a file is that of the kernel's trace, in whatever form
// packets are in it.
func IsTracer(head []byte) bool { return looksLike(head, "# tracer: ") }

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
