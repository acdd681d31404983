package text

import (
	"bytes"
	"math"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert/internal/window"
)

// Server reads the dumps that a server printed of what it received:
//
//	Userspace: Received 11 bytes, dumping
//		byte[0]=0x30
//		...
//
// with an empty line after each. There are no timestamps: packet n gets the time of n
// microseconds after the epoch.
type Server struct {
	text   *lines
	iface  *capture.Interface
	cur    *dump
	paired bool // the times will be those of a trace
}

// NewServer starts reading a server text.
func NewServer(in *window.Window, o Options) *Server { return &Server{text: newLines(in, o)} }

// Next returns the next packet.
func (r *Server) Next() (*capture.Packet, error) {
	d, err := r.text.next(r.parse)
	if err != nil {
		return nil, err
	}
	if r.iface == nil {
		r.describe()
	}
	p := &r.text.packet
	*p = capture.Packet{
		Interface: r.iface,
		Time:      int64(min(r.text.packets, math.MaxInt64/1000)) * 1000,
		Direction: capture.Inbound,
	}
	d.fill(p)
	if kind := r.text.kind.kind; kind != nil {
		p.Protocol = kind.Protocol()
	}
	p.Src, p.Dst = r.text.options.Src, r.text.options.Dst
	return p, nil
}

// unknownKind is the kind of a server text from which none can be inferred.
const unknownKind = "unknown"

func (r *Server) describe() {
	// Userspace gets no headers, except from a raw socket.
	if finder := &r.text.kind; !finder.known {
		finder.find(r.text.dumps.queue)
		if finder.kind != nil && finder.kind.Name != "raw" {
			finder.kind = nil
		}
	}
	r.iface = &capture.Interface{
		Kind: unknownKind, View: capture.ViewUser, Layer: capture.LayerMessage, Source: capture.SourceServer, Times: capture.TimesNone,
	}
	if r.paired {
		r.iface.Times = capture.TimesLent
	}
	if kind := r.text.kind.kind; kind != nil {
		r.iface.Kind, r.iface.IPv6 = kind.Name, kind.IPv6()
	}
}

// parse parses the next line, and the bytes after it that the fast path understands.
func (r *Server) parse() error {
	if d := r.cur; d != nil {
		r.bytes(d)
	}
	t := r.text
	line, whole, err := t.readLine()
	if err != nil {
		return err
	}
	if line == nil {
		return t.doubt(t.line, "a line of more than %d bytes", maxLine)
	}
	kind, index, value := parseText(line, UserHead)
	if !whole && kind != textEnd {
		return t.cutLine(r.cur) // it may have been cut anywhere
	}
	switch kind {
	case textHead:
		r.cur, err = t.head(0, 0, 0, index)
		return err
	case textByte:
		if r.cur == nil {
			if r.cur, err = t.orphan(0, 0, 0); err != nil {
				return err
			}
		}
		return t.dumps.add(r.cur, t.line, index, value)
	case textEnd:
		if r.cur == nil {
			return nil
		}
		d := r.cur
		r.cur = nil
		return t.dumps.end(d)
	case textBad:
		return t.badLine(r.cur, line)
	}
	return t.doubt(t.line, "%s is no line of server text", quoted(line))
}

// bytes is the fast path for well-formed lines of bytes.
func (r *Server) bytes(d *dump) {
	if d.flaw != "" || d.ghost {
		return
	}
	b := r.text.in.Unread()
	data, last, used := d.data, int(min(d.claimed, int64(len(byteLines)))), 0
	for len(data) < last && len(b)-used >= byteRoom {
		value, size, lines := parseByte(b[used:], len(data))
		if lines == 0 {
			break
		}
		used += size
		data = append(data, value)
		if lines > 1 { // an empty line ends the packet: not for the fast path
			used--
			break
		}
	}
	more := len(data) - len(d.data)
	r.text.line += int64(more)
	r.text.dumps.bytes += more
	d.data = data
	r.text.in.Use(used)
}

// head starts a packet.
func (t *lines) head(cpu, pid int, context byte, length uint64) (*dump, error) {
	d, err := t.dumps.begin(cpu, pid, context, t.line)
	if err != nil {
		return nil, err
	}
	d.claimed = int64(min(length, math.MaxUint32))
	if length > math.MaxUint32 {
		d.ghost = true
		return d, t.doubt(t.line, "no packet has %d bytes: it is skipped", length)
	}
	return d, nil
}

// orphan collects bytes that belong to no packet, and reports them once.
func (t *lines) orphan(cpu, pid int, context byte) (*dump, error) {
	d, err := t.dumps.begin(cpu, pid, context, t.line)
	if err != nil {
		return nil, err
	}
	d.ghost = true
	return d, t.doubt(t.line, "a byte of no packet: those up to the next packet are skipped")
}

// badLine reports a malformed line, inside of a packet or outside.
func (t *lines) badLine(d *dump, line []byte) error {
	line = bytes.TrimSpace(line)
	if d != nil && d.flaw == "" && !d.ghost {
		return t.dumps.flawed(d, t.line, "%s cannot be read", quoted(line))
	}
	return t.doubt(t.line, "%s cannot be read", quoted(line))
}

// cutLine reports a last line without a line break.
func (t *lines) cutLine(d *dump) error {
	if d != nil && d.flaw == "" && !d.ghost {
		return t.dumps.flawed(d, t.line, "%v", window.ErrCutOff)
	}
	return t.doubt(t.line, "%w", window.ErrCutOff)
}
