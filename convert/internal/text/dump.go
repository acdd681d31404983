package text

import (
	"fmt"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/remark"
)

// Dumped is the minimum number of bytes that filters print of a longer packet.
const Dumped = 128

const (
	// pendingPackets and pendingBytes bound the packets that are incomplete, or wait for
	// an earlier one to be completed.
	pendingPackets = 1 << 12
	pendingBytes   = 64 << 20
)

// dump is a packet being assembled from the lines of a text.
type dump struct {
	cpu, pid int
	context  byte // the trace's interrupt flag: 's' for a soft interrupt
	line     int64
	time     int64 // since boot, in nanoseconds
	claimed  int64 // length in bytes
	data     []byte
	origin   string // task, pid and cpu
	lost     string // what the trace lost before this packet
	flaw     string // what is wrong with the bytes; no more are added
	ghost    bool   // bytes without a packet: parsed and discarded
	done     bool
}

// dumps assembles the packets of a text. They come out in the order of their first lines.
type dumps struct {
	queue []*dump // oldest first
	open  []*dump // those of queue that are incomplete, newest last
	spare []*dump
	bytes int
	// snaplen limits the bytes that are kept of a packet.
	snaplen int
	// doubt is called with what is wrong with a line. If it returns an error, the text
	// ends.
	doubt func(line int64, format string, args ...any) error
}

// find returns the incomplete packet that a line belongs to, nil if there is none.
func (s *dumps) find(cpu, pid int, context byte) *dump {
	for i := len(s.open) - 1; i >= 0; i-- {
		if d := s.open[i]; d.cpu == cpu && d.pid == pid && d.context == context {
			return d
		}
	}
	return nil
}

// begin starts a packet, which ends an incomplete one from the same place.
func (s *dumps) begin(cpu, pid int, context byte, line int64) (*dump, error) {
	if d := s.find(cpu, pid, context); d != nil {
		if err := s.end(d); err != nil {
			return nil, err
		}
	}
	if len(s.queue) >= pendingPackets || s.bytes >= pendingBytes {
		if err := s.end(s.queue[0]); err != nil {
			return nil, err
		}
	}
	var d *dump
	if n := len(s.spare); n > 0 {
		d, s.spare = s.spare[n-1], s.spare[:n-1]
	} else {
		d = &dump{data: make([]byte, 0, Dumped)}
	}
	*d = dump{cpu: cpu, pid: pid, context: context, line: line, data: d.data[:0]}
	s.queue = append(s.queue, d)
	s.open = append(s.open, d)
	return d, nil
}

// add adds a byte. After the first flaw the rest of the packet is skipped, since its
// offsets are no longer certain.
func (s *dumps) add(d *dump, line int64, index, value uint64) error {
	if d.flaw != "" || d.ghost {
		return nil
	}
	next := uint64(len(d.data))
	switch {
	case index < next:
		return s.doubt(line, "byte %d comes again", index)
	case value > 0xff:
		return s.flawed(d, line, "byte %d is %#x, which is no byte", index, value)
	case index >= uint64(d.claimed):
		return s.flawed(d, line, "byte %d of a packet of %d bytes", index, d.claimed)
	case index > next:
		return s.flawed(d, line, "byte %d where byte %d should come", index, next)
	}
	if len(d.data) < s.snaplen {
		d.data = append(d.data, byte(value))
		s.bytes++
	}
	return nil
}

// flawed reports what is wrong, and that the rest of the packet is left out.
func (s *dumps) flawed(d *dump, line int64, format string, args ...any) error {
	reason := fmt.Sprintf(format, args...)
	d.flaw = reason
	return s.doubt(line, "%s: what follows of this packet is skipped", reason)
}

// end completes a packet, and checks that it has all its bytes.
func (s *dumps) end(d *dump) error {
	if d.done {
		return nil
	}
	d.done = true
	for i, open := range s.open {
		if open == d {
			s.open = append(s.open[:i], s.open[i+1:]...)
			break
		}
	}
	n := int64(len(d.data))
	if d.ghost || d.flaw != "" || n >= min(d.claimed, Dumped) {
		return nil
	}
	d.flaw = fmt.Sprintf("the text ends after byte %d", n-1)
	if n == 0 {
		d.flaw = "the text has no byte of it"
	}
	return s.doubt(d.line, "the packet has %d bytes, but %d of them follow", d.claimed, n)
}

// endAll completes all packets at the end of the text.
func (s *dumps) endAll() error {
	for len(s.open) > 0 {
		if err := s.end(s.open[0]); err != nil {
			return err
		}
	}
	return nil
}

// abandon discards what is incomplete when the text ends with an error.
func (s *dumps) abandon(strict bool) {
	for _, d := range s.queue {
		d.ghost = d.ghost || !d.done || strict && d.flaw != ""
		d.done = true
	}
	s.open = s.open[:0]
}

// ready returns the oldest packet if it is complete, nil otherwise.
func (s *dumps) ready() *dump {
	for len(s.queue) > 0 && s.queue[0].done {
		if d := s.queue[0]; !d.ghost {
			return d
		}
		s.release()
	}
	return nil
}

// release removes the oldest packet, whose memory is reused.
func (s *dumps) release() {
	d := s.queue[0]
	s.bytes -= len(d.data)
	s.queue = append(s.queue[:0], s.queue[1:]...)
	if cap(d.data) <= 1<<12 { // not that of a rare large one
		s.spare = append(s.spare, d)
	}
}

// comment is what is known of a packet besides its bytes.
func (d *dump) comment() string {
	return remark.Join(remark.Join(d.origin, d.lost), d.flaw)
}

// fill sets the fields of a packet from a dump.
func (d *dump) fill(p *capture.Packet) {
	p.Data, p.Len, p.Comment = d.data, int(d.claimed), d.comment()
}
