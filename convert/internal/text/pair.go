package text

import (
	"cmp"
	"errors"
	"io"

	"github.com/ebpfdump/ebpfdump/capture"
)

const (
	// lookAhead bounds, in packets and in bytes, how far ahead the trace is searched for
	// the packet of a delivery.
	lookAhead      = 1 << 12
	lookAheadBytes = 64 << 20
)

// Pair returns the packets of a trace text and of the server text that belongs to it.
// What the server received comes after the packets that brought it, with the id and the
// addresses of the first and the time of the last of them.
type Pair struct {
	kernel *Trace
	server *Server
	pairer *capture.Pairer

	held    []*capture.Packet // of the kernel, in order, until no user packet belongs before them
	spare   []*capture.Packet
	bytes   int
	out     *capture.Packet // the packet of held that was returned last
	release int             // how many of held may be returned
	user    *capture.Packet // the next delivery
	found   bool            // user may be returned once release is 0
	now     int64           // time of the last packet returned

	kernelErr, serverErr error // io.EOF at the end
}

// NewPair combines two texts.
func NewPair(kernel *Trace, server *Server) *Pair {
	return &Pair{kernel: kernel, server: server}
}

// Next returns the next packet.
func (r *Pair) Next() (*capture.Packet, error) {
	if r.out != nil {
		r.spare = append(r.spare, r.out)
		r.out = nil
	}
	for {
		switch {
		case r.release > 0:
			return r.nextHeld(), nil
		case r.found:
			p := r.user
			r.user, r.found, r.now = nil, false, p.Time
			return p, nil
		case r.pairer == nil && r.kernelErr == nil:
			r.readKernel() // to learn the kind of socket
		case r.user == nil && r.serverErr == nil:
			r.readServer()
		case r.user == nil && len(r.held) > 0:
			r.release = len(r.held)
		case r.user == nil && r.kernelErr == nil:
			p, err := r.kernel.Next()
			if err == nil {
				return p, nil
			}
			r.kernelErr = err
		case r.user == nil:
			return nil, r.end()
		case !r.pair():
			r.readKernel()
		}
	}
}

// end is io.EOF, or the errors of both texts.
func (r *Pair) end() error {
	var errs []error
	for _, err := range []error{r.kernelErr, r.serverErr} {
		if !errors.Is(err, io.EOF) {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		return io.EOF
	}
	return errors.Join(errs...)
}

func (r *Pair) nextHeld() *capture.Packet {
	p := r.held[0]
	r.held = append(r.held[:0], r.held[1:]...)
	r.release--
	r.bytes -= len(p.Data)
	r.out, r.now = p, p.Time
	return p
}

// readKernel reads a packet of the trace into held.
func (r *Pair) readKernel() {
	p, err := r.kernel.Next()
	if err != nil {
		r.kernelErr = err
		return
	}
	if r.pairer == nil {
		r.now = p.Time
		kind := r.kernel.text.kind.kind
		r.pairer = capture.NewPairer(kind)
		r.server.text.kind = kindFinder{kind: kind, known: true}
		r.server.paired = true
	}
	r.pairer.Saw(p)
	held := new(capture.Packet)
	if n := len(r.spare); n > 0 {
		held, r.spare = r.spare[n-1], r.spare[:n-1]
	}
	data := append(held.Data[:0], p.Data...)
	*held = *p
	held.Data = data
	r.held = append(r.held, held)
	r.bytes += len(data)
}

func (r *Pair) readServer() {
	p, err := r.server.Next()
	if err != nil {
		r.serverErr = err
		if !errors.Is(err, io.EOF) && r.kernelErr == nil {
			r.kernelErr = io.EOF // nothing is read after an error
		}
		return
	}
	r.user = p
}

// pair tries to find the packets that brought the user packet. It returns false if more
// of the trace has to be read first.
func (r *Pair) pair() bool {
	final := r.kernelErr != nil || len(r.held) >= lookAhead || r.bytes >= lookAheadBytes
	var (
		m  capture.Match
		ok bool
	)
	if r.pairer != nil { // else the trace has no packet at all
		if m, ok = r.pairer.Brought(r.user, final); !ok && !final {
			return false
		}
	}
	if !ok && r.kernelErr != nil && !errors.Is(r.kernelErr, io.EOF) {
		r.user, r.serverErr = nil, io.EOF // its packet may be in the part of the trace that could not be read
		return true
	}
	r.found = true
	p := r.user
	p.Time = r.now
	if !ok {
		p.Receipt.Missing = cmp.Or(m.Receipt.Missing, capture.MissingInTrace)
		return true
	}
	p.ID, p.Src, p.Dst = m.ID, m.Src, m.Dst
	p.Receipt = m.Receipt
	for i, held := range r.held {
		if held.ID == m.Last {
			r.release, p.Time = i+1, held.Time
		}
	}
	return true
}
