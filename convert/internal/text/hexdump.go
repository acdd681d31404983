package text

import (
	"bytes"
	"errors"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert/internal/headers"
	"github.com/ebpfdump/ebpfdump/convert/internal/window"
	"github.com/ebpfdump/ebpfdump/internal/remark"
)

// errDumpedFile is the error for the dump of a file instead of a packet.
var errDumpedFile = errors.New("it is the dump of a capture file: make the file of it again with xxd -r (text2pcap and hexdump cannot), and convert that")

// errWords is the error for bytes whose order nobody knows.
var errWords = errors.New("it has words, whose bytes are in the order of the machine that has printed them: print bytes, with hexdump -C or od -t x1")

// IsHexdump tells from the beginning of a file whether it has packets in rows of bytes, with an
// offset before each.
func IsHexdump(head []byte) bool {
	return anyLine(head, func(line []byte) bool {
		r, ok := parseRow(line, nil)
		return ok && !r.end && (r.value() == 0 || r.logged > 0 && len(r.offset) == 16) && len(r.data) > 1
	})
}

// IsHexLines tells whether it has a packet in a line, and in at least one of eight: prose may have a
// number that looks like one.
func IsHexLines(head []byte) bool {
	if bytes.Contains(head, []byte(KernelHead)) || bytes.Contains(head, []byte(UserHead)) {
		return false
	}
	lines, packets := 0, 0
	anyLine(head, func(line []byte) bool {
		_, text := tracePart(line)
		if len(bytes.TrimSpace(text)) > 0 {
			lines++
		}
		if _, ok := parseHexLine(text, nil); ok {
			packets++
		}
		return false
	})
	return packets > 0 && packets*8 >= lines
}

// anyLine tells whether a line in the beginning of a file is what is looked for. The last one may not be
// complete.
func anyLine(head []byte, is func(line []byte) bool) bool {
	head = bytes.TrimPrefix(head, byteOrderMark)
	for line := range bytes.Lines(head) {
		if len(line) <= maxLine && is(bytes.TrimRight(line, "\n")) {
			return true
		}
	}
	return false
}

// tracePart splits a line of the kernel's trace.
func tracePart(line []byte) (p tracePrefix, text []byte) {
	if p, ok := parsePrefix(line); ok {
		return p, line[p.text:]
	}
	return tracePrefix{timeEnd: -1}, line
}

// Hexdump reads packets in hexadecimal: rows with offsets, or one packet a line.
type Hexdump struct {
	text  *lines
	rows  bool
	boot  int64
	cur   *dump
	first uint64 // offset of its first row: that of memory, or 0
	base  uint64 // in which offsets are printed; 0 until one tells
	last  []byte // the last row, which an asterisk repeats
	again bool   // there was an asterisk
	skip  bool   // the dump that follows is no frame
	words bool   // a row has words
	// rowsTo is where the rows end so far of a packet in another form than the text's; 0 if there is none.
	rowsTo uint64

	clock      clock
	interfaces map[bool]*capture.Interface // by IPv6
	scratch    []byte
	lost       string
	timed      bool
}

// NewHexdump starts reading rows with offsets.
func NewHexdump(in *window.Window, o Options) *Hexdump { return newHexdump(in, o, true) }

// NewHexLines starts reading a packet a line.
func NewHexLines(in *window.Window, o Options) *Hexdump { return newHexdump(in, o, false) }

func newHexdump(in *window.Window, o Options, rows bool) *Hexdump {
	r := &Hexdump{text: newLines(in, o), rows: rows, interfaces: make(map[bool]*capture.Interface)}
	r.text.kind.anyLayer = true
	if !o.BootTime.IsZero() {
		r.boot = o.BootTime.UnixNano()
	}
	r.clock.boot = r.boot
	return r
}

// Next returns the next packet.
func (r *Hexdump) Next() (*capture.Packet, error) {
	for {
		d, err := r.text.next(r.parse)
		if err != nil {
			return nil, err
		}
		if len(r.interfaces) == 0 {
			if err := r.begin(d); err != nil {
				r.text.err, r.text.dumps, r.text.taken = err, dumps{}, false
				return nil, err
			}
		}
		i, ok := r.interfaceOf(d)
		if !ok {
			r.text.packets--
			if err := r.text.doubt(d.line, "a packet that begins with no IP header, but with %#02x: it is skipped", firstByte(d.data)); err != nil {
				r.text.err = err
				return nil, err
			}
			continue
		}
		p := &r.text.packet
		*p = capture.Packet{Interface: i, Time: d.time, ID: r.text.packets, Direction: capture.Inbound}
		d.fill(p)
		kind := r.text.kind.kind
		if i.Layer == capture.LayerTransport {
			transportAddress(p, kind, &r.text.options)
		} else {
			h := headers.Parse(p)
			p.Src, p.Dst, p.Protocol = h.Src, h.Dst, h.Protocol
		}
		return p, nil
	}
}

func firstByte(b []byte) byte {
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

// begin finds out what the packets are.
func (r *Hexdump) begin(d *dump) error {
	for _, magic := range []string{"\x0a\x0d\x0d\x0a", "\xd4\xc3\xb2\xa1", "\xa1\xb2\xc3\xd4", "\x4d\x3c\xb2\xa1", "\xa1\xb2\x3c\x4d"} {
		if r.rows && bytes.HasPrefix(d.data, []byte(magic)) {
			return r.text.errorf(d.line, "%w", errDumpedFile)
		}
	}
	if r.words {
		return r.text.errorf(d.line, "%w", errWords)
	}
	r.text.kind.find(r.text.dumps.queue)
	if r.text.kind.kind == nil {
		return r.text.errorf(d.line, "%w", ErrUnknownKind)
	}
	r.interfaceFor(r.text.kind.kind, r.text.kind.kind.IPv6())
	return nil
}

// interfaceOf is the interface of a packet; ok is false if its socket has no such packets.
func (r *Hexdump) interfaceOf(d *dump) (i *capture.Interface, ok bool) {
	kind := r.text.kind.kind
	if kind.Layer() != capture.LayerNetwork {
		return r.interfaceFor(kind, kind.IPv6()), true
	}
	// Only packet sockets get packets of both versions from the network header on.
	switch version := firstByte(d.data) >> 4; {
	case version == 4:
		return r.interfaceFor(kind, false), true
	case version == 6 && (kind.Name == "packet-dgram" || r.text.options.Kind == nil):
		kind, _ = capture.KindByName("packet-dgram")
		return r.interfaceFor(kind, true), true
	}
	return nil, false
}

func (r *Hexdump) interfaceFor(kind *capture.Kind, ipv6 bool) *capture.Interface {
	if i := r.interfaces[ipv6]; i != nil {
		return i
	}
	i := &capture.Interface{Kind: kind.Name, View: capture.ViewKernel, Layer: kind.Layer(), IPv6: ipv6, Source: capture.SourceDump}
	if i.Layer == capture.LayerTransport {
		i.Header = capture.HeaderInvented
	}
	if !r.timed {
		i.Times = capture.TimesNone
	}
	remark.DescribeDump(i, r.clock.undated)
	r.interfaces[ipv6] = i
	return i
}

// parse parses the next line.
func (r *Hexdump) parse() error {
	t := r.text
	line, _, err := t.readLine()
	if err != nil {
		if doubt := r.end(); doubt != nil {
			return doubt
		}
		return err
	}
	if line == nil {
		return t.doubt(t.line, "a line of more than %d bytes", maxLine)
	}
	if !r.rows {
		return r.packetLine(line)
	}
	if found, ok := parseRow(line, r.scratch); ok {
		if found.data != nil {
			r.scratch = found.data
		}
		return r.row(line, found)
	}
	text := bytes.TrimSpace(line)
	switch {
	case len(text) == 0:
		return r.end()
	case len(text) == 1 && text[0] == '*':
		r.again = true
		return nil
	case isTitle(text):
		r.skip = !bytes.HasPrefix(text, []byte("Frame ("))
		return r.end()
	}
	if r.clock.read(text) {
		return r.end()
	}
	return r.beside(line, remark.FormRows) // such as a line about a packet
}

// beside is for a line that is nothing of the text's form. A packet in another form is not lost without a word.
func (r *Hexdump) beside(line []byte, own remark.TextForm) error {
	if other, ok := parseOther(line, own); ok {
		return r.text.doubt(r.text.line, "%s", remark.MixedForms(other, own))
	}
	return nil
}

// isTitle tells whether a line is one of tshark's above bytes, where it has more than those of the
// frame: "Reassembled TCP (1460 bytes):".
func isTitle(text []byte) bool {
	name, rest, found := bytes.Cut(text, []byte(" ("))
	n := leadingDigits(rest)
	unit := string(rest[n:])
	return found && len(name) > 0 && !bytes.ContainsAny(name, ":") && n > 0 && (unit == " bytes):" || unit == " byte):")
}

// row adds the bytes of a row.
func (r *Hexdump) row(line []byte, found row) error {
	t := r.text
	r.words = r.words || found.words
	inMemory := found.logged > 0 && len(found.offset) == mostDigits && found.value() >= 1<<16
	starts := found.value() == 0 && !found.end && (r.cur == nil || r.cur.claimed > 0)
	if d := r.cur; inMemory && !found.end && (d == nil || found.value() != r.first+uint64(d.claimed)) {
		starts = true
	}
	if starts {
		if err := r.end(); err != nil {
			return err
		}
		if r.skip {
			r.skip = false
			d, err := t.dumps.begin(0, 0, 0, t.line)
			if err != nil {
				return err
			}
			d.ghost, r.cur = true, d
		} else if err := r.start(line[:found.logged]); err != nil {
			return err
		}
		r.first = 0
		if inMemory {
			r.first = found.value()
		}
	}
	d := r.cur
	if d != nil && found.words && len(r.interfaces) > 0 && d.flaw == "" && !d.ghost {
		d.ghost, d.claimed = true, max(d.claimed, 1)
		return t.doubt(t.line, "%w", errWords)
	}
	if d == nil {
		if found.end {
			return nil
		}
		d, err := t.dumps.begin(0, 0, 0, t.line)
		if err != nil {
			return err
		}
		d.ghost, d.claimed, r.cur = true, 1, d
		return t.doubt(t.line, "a row of no packet, at offset %s: those up to the next packet are skipped", found.offset)
	}
	if d.ghost || d.flaw != "" {
		d.claimed = max(d.claimed, 1)
		return nil
	}
	if err := r.place(found); err != nil || d.flaw != "" {
		return err
	}
	r.again = false
	if found.end {
		return r.end()
	}
	r.last = append(r.last[:0], found.data...)
	r.append(found.data)
	return nil
}

// place makes sure that a row comes where the packet ends so far.
func (r *Hexdump) place(found row) error {
	d := r.cur
	if r.base == 0 && d.claimed > 0 {
		r.base = found.baseOf(uint64(d.claimed) + r.first)
	}
	base := r.base
	if base == 0 {
		base = found.likelyBase()
	}
	at, rest, _ := cutNumber(found.offset, base)
	if len(rest) > 0 {
		at = found.value()
	}
	if at -= r.first; at == uint64(d.claimed) {
		return nil
	}
	const longest = 1 << 18
	if r.again && len(r.last) > 0 && at > uint64(d.claimed) && at <= longest {
		for uint64(d.claimed) < at {
			r.append(r.last[:min(uint64(len(r.last)), at-uint64(d.claimed))])
		}
		return nil
	}
	// What stood behind the bytes of the row before looked like bytes.
	if short := uint64(d.claimed) - at; at < uint64(d.claimed) && short < uint64(len(r.last)) {
		d.claimed = int64(at)
		if kept := min(len(d.data), int(at)); kept < len(d.data) {
			r.text.dumps.bytes -= len(d.data) - kept
			d.data = d.data[:kept]
		}
		return nil
	}
	return r.text.dumps.flawed(d, r.text.line, "offset %s where %#x should come", found.offset, uint64(d.claimed)+r.first)
}

func (r *Hexdump) append(data []byte) {
	d := r.cur
	d.claimed += int64(len(data))
	kept := data[:min(len(data), max(0, r.text.dumps.snaplen-len(d.data)))]
	d.data = append(d.data, kept...)
	r.text.dumps.bytes += len(kept)
}

// start begins a packet. What precedes its first row may have a time.
func (r *Hexdump) start(before []byte) (err error) {
	t := r.text
	if r.cur, err = t.dumps.begin(0, 0, 0, t.line); err != nil {
		return err
	}
	if len(before) > 0 {
		if p, ok := parsePrefix(before); ok {
			r.cur.origin = remark.Task{Name: string(p.task), PID: p.pid, CPU: p.cpu}.String()
			r.clock.since(p.time)
		} else {
			r.clock.readLogged(before)
		}
	}
	r.stamp()
	return nil
}

// stamp gives the packet its time.
func (r *Hexdump) stamp() {
	var known bool
	if r.cur.time, known = r.clock.next(); known {
		r.timed = true
	}
	r.cur.lost, r.lost = r.lost, ""
}

// end completes the packet.
func (r *Hexdump) end() error {
	d := r.cur
	r.cur, r.again = nil, false
	if d == nil {
		return nil
	}
	return r.text.dumps.end(d)
}

// packetLine parses a line that may be a packet.
func (r *Hexdump) packetLine(line []byte) error {
	t := r.text
	if _, events, ok := parseLost(line); ok {
		r.lost = lostBefore(events)
		return nil
	}
	if r.otherRow(line) {
		return nil
	}
	if isSurelyRow(line) {
		row, _ := parseRow(line, nil)
		r.rowsTo = uint64(len(row.data))
		return r.beside(line, remark.FormLines)
	}
	p, text := tracePart(line)
	found, ok := parseHexLine(text, r.scratch)
	if !ok {
		if p.timeEnd < 0 && r.clock.read(bytes.TrimSpace(line)) {
			return nil
		}
		short, sure, isShort := parseShortLine(text, r.scratch)
		if !isShort || !sure && p.timeEnd >= 0 { // a filter prints numbers
			return r.beside(line, remark.FormLines)
		}
		if !sure {
			return t.doubt(t.line, "%q alone may be a packet, a number or a word: a packet says its length, as in len %d: %[1]s", bytes.TrimSpace(text), len(short.data))
		}
		found = short
	}
	r.scratch = found.data
	var err error
	if r.cur, err = t.dumps.begin(0, 0, 0, t.line); err != nil {
		return err
	}
	if p.timeEnd >= 0 {
		r.clock.since(p.time)
		r.cur.origin = remark.Task{Name: string(p.task), PID: p.pid, CPU: p.cpu}.String()
	} else {
		r.clock.readLogged(bytes.TrimSpace(line))
	}
	r.stamp()
	r.append(found.data)
	r.cur.claimed = int64(found.length)
	return r.end()
}

// otherRow tells whether a line is the next row of a packet in rows, in a text with a packet a line.
func (r *Hexdump) otherRow(line []byte) bool {
	if r.rowsTo == 0 {
		return false
	}
	found, ok := parseRow(line, nil)
	if !ok || found.baseOf(r.rowsTo) == 0 {
		r.rowsTo = 0
		return false
	}
	r.rowsTo += uint64(len(found.data))
	return true
}
