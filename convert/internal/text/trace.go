package text

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert/internal/headers"
	"github.com/ebpfdump/ebpfdump/convert/internal/window"
	"github.com/ebpfdump/ebpfdump/internal/header"
	"github.com/ebpfdump/ebpfdump/internal/remark"
)

// Trace reads what a socket filter printed to the kernel's trace with
// bpf_trace_printk:
//
//	nc-2834 [001] ..s31 1234.567890: bpf_trace_printk: Kernelspace: Received 43 bytes, dumping
//	nc-2834 [001] ..s31 1234.567891: bpf_trace_printk: 	byte[0]=0xcd
//	...
//
// with an empty text at the end of each packet. Since Linux 5.9 an empty line without
// meaning follows each of these lines. The packets of several cpus may be interleaved.
// Lines belong together by cpu, pid and interrupt flag, but not by the task's name, which
// the kernel may learn only later.
type Trace struct {
	text    *lines
	iface   *capture.Interface
	boot    int64             // in nanoseconds since the epoch
	places  map[string]*place // by task, pid and cpu as printed
	lost    map[int]string    // by cpu: what was lost since the last packet
	recents [8]recentPrefix
	recent  *recentPrefix // the one of recents that the last line had
	next    int           // of recents: the one replaced last
	now     int64         // time of the last line with a prefix
}

// place is who printed a line, and where.
type place struct {
	cpu, pid int
	origin   string
}

// placesLimit bounds places.
const placesLimit = 1 << 12

// recentPrefix is the prefix of a recent line, for the fast path: most lines have the
// prefix of the line before or, while several cpus print, of one shortly before, except
// for the last three digits of the time.
type recentPrefix struct {
	head, tail []byte // the prefix before and after these digits
	base       int64  // time without them
	place      *place
	context    byte
	// dump is the incomplete packet that such lines belong to, nil if unknown. It is
	// valid only for the prefix of the last line, since other packets may end in the
	// meantime.
	dump *dump
}

// NewTrace starts reading a trace text.
func NewTrace(in *window.Window, o Options) *Trace {
	r := &Trace{text: newLines(in, o), places: make(map[string]*place), lost: make(map[int]string)}
	r.recent = &r.recents[0]
	if !o.BootTime.IsZero() {
		r.boot = o.BootTime.UnixNano()
	}
	return r
}

// Next returns the next packet.
func (r *Trace) Next() (*capture.Packet, error) {
	d, err := r.text.next(r.parse)
	if err != nil {
		return nil, err
	}
	if r.iface == nil {
		r.text.kind.find(r.text.dumps.queue)
		if r.text.kind.kind == nil {
			r.text.err = r.text.errorf(d.line, "%w", ErrUnknownKind)
			r.text.dumps = dumps{}
			r.text.taken = false
			return nil, r.text.err
		}
		r.describe(r.text.kind.kind)
	}
	p := &r.text.packet
	*p = capture.Packet{
		Interface: r.iface,
		Time:      r.boot + d.time,
		ID:        r.text.packets,
		Direction: capture.Inbound,
	}
	d.fill(p)
	r.address(p)
	return p, nil
}

func (r *Trace) describe(kind *capture.Kind) {
	i := &capture.Interface{
		Kind: kind.Name, View: capture.ViewKernel, Layer: kind.Layer(), IPv6: kind.IPv6(), Source: capture.SourceTrace,
	}
	if i.Layer == capture.LayerTransport {
		i.Header = capture.HeaderInvented
	}
	var boot time.Time
	if r.boot != 0 {
		boot = time.Unix(0, r.boot)
	}
	remark.DescribeTrace(i, boot)
	r.iface = i
}

// address sets a packet's addresses and protocol.
func (r *Trace) address(p *capture.Packet) {
	if p.Interface.Layer != capture.LayerTransport {
		h := headers.Parse(p)
		p.Src, p.Dst, p.Protocol = h.Src, h.Dst, h.Protocol
		return
	}
	transportAddress(p, r.text.kind.kind, &r.text.options)
}

// transportAddress sets addresses and protocol of a packet that begins with the transport header.
func transportAddress(p *capture.Packet, kind *capture.Kind, o *Options) {
	if p.Protocol = kind.Protocol(); p.Protocol == 0 {
		p.Protocol = guessProtocol(p)
	}
	loopback := kind.Loopback().Addr()
	p.Src, p.Dst = orElse(o.Src, loopback), orElse(o.Dst, loopback)
	if header.HasPorts(p.Protocol) && len(p.Data) >= 4 {
		p.Src = netip.AddrPortFrom(p.Src.Addr(), binary.BigEndian.Uint16(p.Data))
		p.Dst = netip.AddrPortFrom(p.Dst.Addr(), binary.BigEndian.Uint16(p.Data[2:]))
	}
}

func orElse(a netip.AddrPort, loopback netip.Addr) netip.AddrPort {
	if a.IsValid() {
		return a
	}
	return netip.AddrPortFrom(loopback, 0)
}

// guessProtocol infers the protocol of a packet from its bytes.
func guessProtocol(p *capture.Packet) uint8 {
	const none = 59 // IPv6's number for no next header
	switch length := int64(p.Len); {
	case fitsUDP(p.Data, length):
		return header.ProtocolUDP
	case fitsTCP(p.Data, length):
		return header.ProtocolTCP
	}
	return none
}

// parse parses the next line, and the bytes before it that the fast path understands.
func (r *Trace) parse() error {
	r.bytes()
	t := r.text
	line, whole, err := t.readLine()
	switch {
	case err != nil:
		return err
	case line == nil:
		return t.doubt(t.line, "a line of more than %d bytes", maxLine)
	case len(line) == 0:
		return r.blank()
	}
	if !r.matchRecent(line) {
		p, ok := parsePrefix(line)
		if !ok {
			return r.noPrefix(line, whole)
		}
		kind, index, value := parseText(line[p.text:], KernelHead)
		if kind == textOther && whole {
			return r.beside(line[p.text:])
		}
		r.now = p.time
		r.setRecent(line, &p)
		return r.dumpLine(line[p.text:], whole, kind, index, value)
	}
	line = line[len(r.recent.head)+3+len(r.recent.tail):]
	kind, index, value := parseText(line, KernelHead)
	return r.dumpLine(line, whole, kind, index, value)
}

// bytes is the fast path for lines of bytes that look like the one before.
func (r *Trace) bytes() {
	recent := r.recent
	d, in := recent.dump, r.text.in
	if d == nil || d.flaw != "" || d.ghost {
		return
	}
	head, tail := len(recent.head), len(recent.head)+3
	size := tail + len(recent.tail)
	b := in.Unread()
	data, last, used := d.data, int(min(d.claimed, int64(len(byteLines)))), 0
	for len(data) < last && len(b)-used >= size+byteRoom {
		line := b[used:]
		if string(line[:head]) != string(recent.head) || string(line[tail:size]) != string(recent.tail) || !threeDigits(line[head:]) {
			break
		}
		value, n, lines := parseByte(line[size:], len(data))
		if lines == 0 {
			break
		}
		used += size + n
		r.text.line += int64(lines)
		data = append(data, value)
	}
	r.text.dumps.bytes += len(data) - len(d.data)
	d.data = data
	in.Use(used)
}

func threeDigits(b []byte) bool {
	return b[0]-'0' <= 9 && b[1]-'0' <= 9 && b[2]-'0' <= 9
}

// matchRecent tells whether a line has a recent prefix.
func (r *Trace) matchRecent(line []byte) bool {
	if r.recent.match(line) {
		r.now = r.recent.time(line)
		return true
	}
	for i := range r.recents {
		if other := &r.recents[i]; other.match(line) {
			r.recent, r.now = other, other.time(line)
			other.dump = nil
			return true
		}
	}
	return false
}

func (p *recentPrefix) match(line []byte) bool {
	head := len(p.head)
	return head > 0 && len(line) >= head+3+len(p.tail) && string(line[:head]) == string(p.head) &&
		string(line[head+3:head+3+len(p.tail)]) == string(p.tail) && threeDigits(line[head:])
}

// time returns the time of a line with the prefix.
func (p *recentPrefix) time(line []byte) int64 {
	digits := line[len(p.head):]
	return p.base + (int64(digits[0]-'0')*100+int64(digits[1]-'0')*10+int64(digits[2]-'0'))*1000
}

func (r *Trace) setRecent(line []byte, p *tracePrefix) {
	recent := r.replace(r.place(line, p), p.context)
	recent.head, recent.tail = recent.head[:0], recent.tail[:0]
	if p.micros {
		recent.head = append(recent.head, line[:p.timeEnd-3]...)
		recent.tail = append(recent.tail, line[p.timeEnd:p.text]...)
		recent.base = p.time - p.time%1e6
	}
}

// replace makes room for a prefix. An older one of the same place is replaced first,
// since its time will not come again.
func (r *Trace) replace(at *place, context byte) *recentPrefix {
	for i := range r.recents {
		if p := &r.recents[i]; p.place == at && p.context == context {
			r.recent = p
		}
	}
	if p := r.recent; p.place != at || p.context != context {
		r.next = (r.next + 1) % len(r.recents)
		r.recent = &r.recents[r.next]
	}
	*r.recent = recentPrefix{head: r.recent.head, tail: r.recent.tail, place: at, context: context}
	return r.recent
}

// place returns the place of a line.
func (r *Trace) place(line []byte, p *tracePrefix) *place {
	if known := r.places[string(line[:p.place])]; known != nil {
		return known
	}
	if len(r.places) >= placesLimit {
		clear(r.places)
	}
	known := &place{cpu: p.cpu, pid: p.pid, origin: remark.Task{Name: string(p.task), PID: p.pid, CPU: p.cpu}.String()}
	r.places[string(line[:p.place])] = known
	return known
}

// dumpLine handles a line's text after the recent prefix.
func (r *Trace) dumpLine(text []byte, whole bool, kind textKind, index, value uint64) (err error) {
	t, recent := r.text, r.recent
	at := recent.place
	if recent.dump == nil {
		recent.dump = t.dumps.find(at.cpu, at.pid, recent.context)
	}
	d := recent.dump
	if !whole && (kind != textEnd || d == nil) {
		return t.cutLine(d) // it may have been cut anywhere
	}
	switch kind {
	case textHead:
		if d, err = t.head(at.cpu, at.pid, recent.context, index); d != nil {
			d.time, d.origin, d.lost = r.now, at.origin, r.lost[at.cpu]
			delete(r.lost, at.cpu)
		}
		recent.dump = d
	case textByte:
		if d == nil {
			if recent.dump, err = t.orphan(at.cpu, at.pid, recent.context); err != nil {
				return err
			}
		}
		return t.dumps.add(recent.dump, t.line, index, value)
	case textEnd:
		recent.dump = nil
		if d != nil {
			return t.dumps.end(d)
		}
	case textBad:
		return t.badLine(d, text)
	case textOther:
		return r.beside(text)
	}
	return err
}

// beside is for what another program has printed to the trace, which may be packets in another form.
func (r *Trace) beside(text []byte) error {
	if other, ok := parseOther(text, remark.FormTrace); ok {
		return r.text.doubt(r.text.line, "%s", remark.MixedForms(other, remark.FormTrace))
	}
	return nil
}

// noPlace stands for the cpu of lines without a prefix.
const noPlace = -1

// noPrefix handles a line without a prefix.
func (r *Trace) noPrefix(line []byte, whole bool) (err error) {
	t := r.text
	kind, index, value := parseText(line, KernelHead)
	d := t.dumps.find(noPlace, 0, 0)
	if !whole && kind != textEnd {
		return t.cutLine(d)
	}
	switch kind {
	case textHead:
		r.recent.dump = nil // it may have been evicted
		if d, err = t.head(noPlace, 0, 0, index); d != nil {
			d.time = r.now
		}
		return err
	case textByte:
		if d == nil {
			r.recent.dump = nil
			if d, err = t.orphan(noPlace, 0, 0); err != nil {
				return err
			}
		}
		return t.dumps.add(d, t.line, index, value)
	case textEnd:
		return r.blank()
	case textBad:
		return t.badLine(d, line)
	}
	if line[0] == '#' || bytes.HasPrefix(line, []byte(" => ")) {
		return nil // such as a comment, or a line of a stack trace
	}
	if cpu, events, ok := parseLost(line); ok {
		r.loss(cpu, events)
		return nil
	}
	return t.doubt(t.line, "%s is no line of a trace", quoted(line))
}

// blank handles an empty line. It ends a packet whose lines have no prefix; otherwise the
// kernel printed it.
func (r *Trace) blank() error {
	if d := r.text.dumps.find(noPlace, 0, 0); d != nil {
		return r.text.dumps.end(d)
	}
	return nil
}

// loss notes that lines of a cpu are missing.
func (r *Trace) loss(cpu int, events uint64) {
	if len(r.lost) >= placesLimit {
		clear(r.lost)
	}
	r.lost[cpu] = lostBefore(events)
}

// lostBefore says how many lines the trace has lost, 0 for an unknown number.
func lostBefore(events uint64) string {
	switch events {
	case 0:
		return "the trace lost lines before this packet"
	case 1:
		return "the trace lost 1 line before this packet"
	}
	return fmt.Sprintf("the trace lost %d lines before this packet", events)
}
