package capture

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/pair"
)

// An expression is asked in the kernel about each packet, where that is recorded. Of those that it leaves
// out the pairing gets notes, so that what userspace got of them is known, and left out as well.

// HasIPPackets tells whether the packets of such a socket have IP headers, by which an Expression chooses.
func (k *Kind) HasIPPackets() bool { return k.HasCgroupHooks() || k.domain == unix.AF_PACKET }

// leavesOut tells whether a delivery is left out: the packets that brought it are not wanted, or none is
// known, and its own addresses and bytes are not.
func (c *collector) leavesOut(r *route, d *delivery, m *pair.Match) bool {
	switch {
	case c.expression == nil || m.ID != 0:
		return false
	case m.Unwanted:
		return true
	case m.After || m.Later:
		return false
	}
	return !c.wantsBytes(r, d.From, d.To, d.Data, d.Full)
}

// wantsBytes asks the expression about bytes without headers, behind such as they may have had.
func (c *collector) wantsBytes(r *route, from, to netip.AddrPort, data []byte, length int) bool {
	if c.expression == nil {
		return true
	}
	if !r.kind.HasIPPackets() {
		return false
	}
	if r.kind.layer == LayerNetwork && len(data) > 0 && data[0]>>4 == 4 {
		return c.expression.Wants(data, length)
	}
	from, to = unmapped(from), unmapped(to)
	if !from.IsValid() && !to.IsValid() {
		return true // nothing is known
	}
	var room [60]byte
	packet, transport := room[:40], room[40:40]
	if from.Addr().Is4() || to.Addr().Is4() {
		packet, transport = room[:20], room[20:20]
	}
	switch r.protocol {
	case unix.IPPROTO_TCP:
		transport = append(transport, make([]byte, 20)...)
		transport[12], transport[13] = 5<<4, 0x18
	case unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE:
		transport = append(transport, make([]byte, 8)...)
		binary.BigEndian.PutUint16(transport[4:], uint16(min(8+length, 0xffff)))
	}
	if len(transport) > 0 {
		binary.BigEndian.PutUint16(transport, from.Port())
		binary.BigEndian.PutUint16(transport[2:], to.Port())
	}
	if len(packet) == 20 {
		packet[0], packet[8], packet[9] = 0x45, 64, r.protocol
		binary.BigEndian.PutUint16(packet[2:], uint16(min(20+len(transport)+length, 0xffff)))
		put(packet[12:16], from.Addr())
		put(packet[16:20], to.Addr())
	} else {
		packet[0], packet[6], packet[7] = 0x60, r.protocol, 64
		binary.BigEndian.PutUint16(packet[4:], uint16(min(len(transport)+length, 0xffff)))
		put(packet[8:24], from.Addr())
		put(packet[24:40], to.Addr())
	}
	c.asked = append(append(append(c.asked[:0], packet...), transport...), data[:min(len(data), wantedBytes)]...)
	return c.expression.Wants(c.asked, len(packet)+len(transport)+length)
}

// put puts an address where there is room for one of its family.
func put(to []byte, address netip.Addr) {
	switch {
	case address.Is4() && len(to) == 4:
		bytes := address.As4()
		copy(to, bytes[:])
	case address.Is6() && len(to) == 16:
		bytes := address.As16()
		copy(to, bytes[:])
	}
}

// wantedBytes bounds how many bytes without headers an expression is asked about.
const wantedBytes = 2048

// Unwanted is how many packets the Expression has left out of a view so far. It can be read at any time;
// while packets come, it may count some that come after those which the Sink has got.
func (r *recording) Unwanted(v View) (uint64, error) {
	g := r.ledger()
	counts, err := g.counts()
	return g.unwanted(v, &counts), err
}

// unwanted is how many packets the expression left out of a view.
func (g *ledger) unwanted(v View, counts *Counts) uint64 {
	switch {
	case v == ViewUser, v == ViewSent:
		return 0
	case v == ViewSelect:
		return counts.Select.Unwanted
	case v == ViewDrop:
		return counts.Drops.Unwanted
	case v == ViewWire:
		return counts.Wire.Unwanted
	case v == ViewCgroup && g.collector.hooks.beside != nil:
		return counts.Ingress.Unwanted + counts.Egress.Unwanted
	case v == ViewCgroup:
		return counts.Tap.Unwanted + counts.Egress.Unwanted
	}
	return counts.Tap.Unwanted
}

// chosenBy notes the expression at all interfaces of an outlet.
func (p *outlet) chosenBy(e *bpf.Expression) {
	for _, at := range p.lanes {
		if at != nil {
			at.Expression = e.String()
		}
	}
}
