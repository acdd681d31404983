package main

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// scope tells which packets of a namespace are for the followed process: those to ports
// that it serves, and those from ports that it calls.
type scope struct{ serves, calls []uint16 }

func (s scope) has(p *packet) bool {
	return (p.network == "tcp" || p.network == "udp") &&
		(slices.Contains(s.serves, p.dst.Port()) || slices.Contains(s.calls, p.src.Port()))
}

// flow is one direction of a connection, or the datagrams from one socket to another.
type flow struct {
	name    string
	packets []*packet
	reads   []*packet
}

// flowName distinguishes successive flows of the same ports.
func flowName(p *packet, nth int) string {
	return fmt.Sprintf("%s %v > %v (%d)", p.network, p.src, p.dst, nth)
}

// flows sorts packets by flow. A new handshake begins a new connection.
func flows(all []*packet) map[string]*flow {
	type ends struct{ network, src, dst string }
	current := make(map[ends]*flow)
	count := make(map[ends]int)
	named := make(map[string]*flow)
	for _, p := range all {
		key := ends{p.network, p.src.String(), p.dst.String()}
		f := current[key]
		if f == nil || f.endsBy(p) {
			// The last acknowledgements of an earlier connection do not begin a new one.
			if f == nil || len(carrying(f.packets)) > 0 {
				count[key]++
			}
			f = &flow{name: flowName(p, count[key])}
			current[key], named[f.name] = f, f
		}
		f.packets = append(f.packets, p)
	}
	return named
}

// endsBy tells whether a packet is the handshake of another connection.
func (f *flow) endsBy(p *packet) bool {
	first := f.packets[0]
	return p.flags&synFlag != 0 && (first.flags&synFlag == 0 || first.seq != p.seq)
}

// begin is the sequence number of a connection's first byte.
func (f *flow) begin() uint32 {
	if f.packets[0].flags&synFlag != 0 {
		return f.packets[0].seq + 1
	}
	return f.packets[0].seq
}

// stream reassembles a connection.
func (f *flow) stream() []byte {
	var all []byte
	for _, p := range f.packets {
		at := int(int32(p.seq - f.begin()))
		if at < 0 || len(p.data) == 0 {
			continue
		}
		if at > len(all) {
			all = append(all, make([]byte, at-len(all))...)
		}
		if end := at + len(p.data); end > len(all) {
			all = append(all[:at], p.data...)
		}
	}
	return all
}

// carries tells whether a packet must be in the kernel view: bare acknowledgements and
// ends may come after the socket is gone.
func (p *packet) carries() bool {
	return p.network != "tcp" || len(p.data) > 0 || p.flags&synFlag != 0
}

func carrying(all []*packet) []*packet {
	return slices.DeleteFunc(slices.Clone(all), func(p *packet) bool { return !p.carries() })
}

func (p *packet) same(q *packet) bool {
	return p.network == q.network && p.src == q.src && p.dst == q.dst && p.seq == q.seq && p.flags == q.flags && bytes.Equal(p.data, q.data)
}

// comparison compares a capture with the wire.
type comparison struct {
	unread bool // the process leaves something unread, by its nature
	byID   map[int]*packet
	owner  map[*packet]*flow
	faults []string
}

func (c *comparison) fault(format string, args ...any) {
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

// report limits the errors for one capture.
func (c *comparison) report(tb testing.TB) {
	tb.Helper()
	const limit = 12
	for _, fault := range c.faults[:min(limit, len(c.faults))] {
		tb.Error(fault)
	}
	if len(c.faults) > limit {
		tb.Errorf("and %d faults more", len(c.faults)-limit)
	}
}

// compare checks that a capture has what the wire had for the followed process: every
// packet in the kernel view, and every byte in the user view, once, in order, under its
// own connection, with the id of the packet that has the first byte of each read.
func (c *comparison) compare(s scope, truth, got []packet) {
	c.byID, c.owner = make(map[int]*packet), make(map[*packet]*flow)
	var sent, kernel, user []*packet
	for i := range truth {
		if s.has(&truth[i]) {
			sent = append(sent, &truth[i])
		}
	}
	for i := range got {
		p := &got[i]
		switch {
		case !s.has(p):
			c.fault("frame %d of %s is nobody's business: %v", p.frame, p.iface, p)
		case p.user:
			user = append(user, p)
		default:
			if c.byID[p.id] != nil {
				c.fault("frame %d has the id of another packet, %d", p.frame, p.id)
			}
			c.byID[p.id] = p
			kernel = append(kernel, p)
		}
	}
	if len(sent) == 0 {
		c.fault("nothing was on the wire")
	}
	want, have := flows(sent), flows(kernel)
	for _, f := range have {
		for _, p := range f.packets {
			c.owner[p] = f
		}
	}
	c.assign(user)
	for _, name := range slices.Sorted(maps.Keys(want)) {
		f := have[name]
		if f == nil {
			if len(carrying(want[name].packets)) > 0 {
				c.fault("%s is not in the kernel view", name)
			}
			continue
		}
		c.kernelView(want[name], f)
		if strings.HasPrefix(name, "tcp") {
			c.streamReads(want[name], f)
		} else {
			c.datagramReads(want[name], f)
		}
	}
	for name := range have {
		if want[name] == nil {
			c.fault("%s was not on the wire", name)
		}
	}
}

// assign assigns each read to the connection of its packet.
func (c *comparison) assign(user []*packet) {
	for _, p := range user {
		k := c.byID[p.id]
		switch {
		case k == nil && p.id == 0 && len(p.data) == 0 && p.remark != "":
			// without a packet: an error, or the end of a socket
		case k == nil:
			c.fault("frame %d has packet id %d, which no packet has: %v: %s", p.frame, p.id, p, p.remark)
		case k.src != p.src || k.dst != p.dst || k.network != p.network:
			c.fault("frame %d is of packet %d, which is another connection's: %v, %v", p.frame, p.id, p, k)
		default:
			c.owner[k].reads = append(c.owner[k].reads, p)
		}
	}
}

// kernelView checks that a flow's packets are there.
func (c *comparison) kernelView(want, have *flow) {
	sent, seen := carrying(want.packets), carrying(have.packets)
	for i := range max(len(sent), len(seen)) {
		switch {
		case i >= len(seen):
			c.fault("%s: the kernel view has %d packets of %d; the first that is missing: %v", want.name, len(seen), len(sent), sent[i])
		case i >= len(sent):
			c.fault("%s: the kernel view has %d packets too many: %v", want.name, len(seen)-len(sent), seen[i])
		case !sent[i].same(seen[i]):
			c.fault("%s: packet %d of %d is %v in the kernel view (frame %d), %v on the wire", want.name, i, len(sent), seen[i], seen[i].frame, sent[i])
		default:
			continue
		}
		break
	}
	// A packet without payload need not be there, but must have been on the wire.
	rest := make(map[string]int)
	for _, p := range want.packets {
		rest[fmt.Sprint(p.seq, p.flags)]++
	}
	for _, p := range have.packets {
		key := fmt.Sprint(p.seq, p.flags)
		if rest[key]--; rest[key] < 0 {
			c.fault("%s: frame %d was not on the wire, or not so often: %v", want.name, p.frame, p)
		}
	}
}

func (p *packet) peeked() bool { return strings.Contains(p.remark, "MSG_PEEK") }

// streamReads checks that what was read from a connection is what was sent.
func (c *comparison) streamReads(want, have *flow) {
	stream, begin, at := want.stream(), want.begin(), 0
	for _, r := range have.reads {
		rest := stream[min(at, len(stream)):]
		if !bytes.HasPrefix(rest, r.data) {
			c.fault("%s: frame %d has at byte %d %.40q (%d bytes), sent was %.40q (%d bytes)", want.name, r.frame, at, r.data, len(r.data), rest, len(rest))
			return
		}
		k := c.byID[r.id]
		if from := int(int32(k.seq - begin)); len(r.data) > 0 && (from > at || from+len(k.data) <= at) {
			c.fault("%s: frame %d begins with byte %d, its packet %d has %d to %d", want.name, r.frame, at, r.id, from, from+len(k.data))
		}
		if !r.peeked() {
			at += len(r.data)
		}
	}
	if at < len(stream) && !c.unread {
		c.fault("%s: the user view has %d bytes of %d", want.name, at, len(stream))
	}
}

// datagramReads checks that each datagram was read completely and once.
func (c *comparison) datagramReads(want, have *flow) {
	read := make(map[int]bool)
	n := 0
	for _, r := range have.reads {
		k := c.byID[r.id]
		if !bytes.Equal(k.data, r.data) && !(r.peeked() && bytes.HasPrefix(k.data, r.data)) {
			c.fault("%s: frame %d is %.40q, its packet %.40q", want.name, r.frame, r.data, k.data)
		}
		if r.peeked() {
			continue
		}
		if read[r.id] {
			c.fault("%s: packet %d was read twice", want.name, r.id)
		}
		read[r.id] = true
		if n < len(want.packets) && !bytes.Equal(want.packets[n].data, r.data) {
			c.fault("%s: read %d is %.40q, sent was %.40q", want.name, n, r.data, want.packets[n].data)
		}
		n++
	}
	if n < len(want.packets) && !c.unread {
		c.fault("%s: the user view has %d datagrams of %d", want.name, n, len(want.packets))
	}
}

// A comparison must check everything: every change to a faultless capture is found.
func TestComparison(t *testing.T) {
	client, server := netip.MustParseAddrPort("127.0.0.1:50001"), netip.MustParseAddrPort("127.0.0.1:7100")
	other := netip.MustParseAddrPort("127.0.0.1:50002")
	truth := []packet{
		{network: "tcp", src: client, dst: server, seq: 99, flags: synFlag},
		{network: "tcp", src: client, dst: server, seq: 100, data: []byte("first ")},
		{network: "tcp", src: client, dst: server, seq: 106, data: []byte("second")},
		{network: "tcp", src: client, dst: server, seq: 499, flags: synFlag}, // the port again
		{network: "tcp", src: client, dst: server, seq: 500, data: []byte("third")},
		{network: "udp", src: client, dst: server, data: []byte("datagram")},
		{network: "udp", src: client, dst: server, data: []byte("another one")},
		{network: "tcp", src: server, dst: client, seq: 1, data: []byte("what the process sends")},
	}
	read := func(id int, text string) packet {
		p := truth[id]
		return packet{network: p.network, src: p.src, dst: p.dst, id: id, user: true, data: []byte(text)}
	}
	faultless := func() []packet {
		var all []packet
		for id, p := range truth[:7] {
			p.id = id
			all = append(all, p)
		}
		all[0].id = 100
		return append(all, read(1, "fir"), read(1, "st sec"), read(2, "ond"), read(4, "third"), read(5, "datagram"), read(6, "another one"))
	}
	// The last packets of an earlier connection of the port change nothing.
	remains := packet{network: "tcp", src: client, dst: server, seq: 7}
	changes := map[string]func(all []packet) []packet{
		"nothing":                         func(all []packet) []packet { return all },
		"the handshake is missing":        func(all []packet) []packet { return all[1:] },
		"a segment is missing":            func(all []packet) []packet { return slices.Delete(all, 2, 3) },
		"a segment is there twice":        func(all []packet) []packet { return append(all, all[2]) },
		"a segment has other bytes":       func(all []packet) []packet { all[2].data = []byte("secomd"); return all },
		"segments are in another order":   func(all []packet) []packet { all[1], all[2] = all[2], all[1]; return all },
		"a read is missing":               func(all []packet) []packet { return slices.Delete(all, 8, 9) },
		"the last read is missing":        func(all []packet) []packet { return slices.Delete(all, 9, 10) },
		"a read is there twice":           func(all []packet) []packet { return append(all, all[9]) },
		"a read has other bytes":          func(all []packet) []packet { all[8].data = []byte("st sek"); return all },
		"a read has the next packet's id": func(all []packet) []packet { all[8].id = 2; return all },
		"a read has no id":                func(all []packet) []packet { all[8].id = 0; return all },
		"a read is another connection's":  func(all []packet) []packet { all[10].id = 1; return all },
		"a read has other addresses":      func(all []packet) []packet { all[10].src = other; return all },
		"a datagram is missing":           func(all []packet) []packet { return slices.Delete(all, 5, 6) },
		"datagrams have changed ids":      func(all []packet) []packet { all[11].id, all[12].id = 6, 5; return all },
		"a datagram was not read":         func(all []packet) []packet { return all[:12] },
		"something else is recorded":      func(all []packet) []packet { return append(all, truth[7]) },
		"a connection is strange": func(all []packet) []packet {
			return append(all, packet{network: "tcp", src: other, dst: server, id: 9})
		},
	}
	for name, change := range changes {
		for _, wire := range [][]packet{truth, append([]packet{remains}, truth...)} {
			var c comparison
			c.compare(scope{serves: []uint16{7100}}, wire, change(faultless()))
			if (len(c.faults) == 0) != (name == "nothing") {
				t.Errorf("%s, of %d packets: faults %q", name, len(wire), c.faults)
			}
		}
	}
}
