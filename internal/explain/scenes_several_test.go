package explain

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// Scenes of several connections, captures or sockets, and of what stopped packets on their way.
func init() {
	maps.Copy(scenes, map[string]func(testing.TB) *Explanation{
		// What mergecap makes of two captures with different peers.
		"merged": func(t testing.TB) *Explanation {
			r := newRecording()
			for i := range 2 {
				r.ids = 0
				for range 2 {
					r.datagram("0123456789\n").Src = netip.AddrPortFrom(client.Addr(), uint16(4000+i))
				}
			}
			for id := range uint64(2) {
				for i := range 2 {
					r.read(udpUser, id+1, "0123456789\n").Src = netip.AddrPortFrom(client.Addr(), uint16(4000+i))
				}
			}
			for _, p := range r.packets {
				if p.Interface == udpKernel {
					binary.BigEndian.PutUint16(p.Data, p.Src.Port())
				}
			}
			return r.explain(t)
		},
		"chosen": func(t testing.TB) *Explanation {
			r := newRecording()
			group := &capture.Interface{Kind: "udp", View: capture.ViewSelect, Layer: capture.LayerTransport, Description: synthetic, Members: 2}
			for _, how := range []capture.Selector{capture.SelectorHash, capture.SelectorDrop, capture.SelectorUnknown} {
				p := r.datagram("0123456789\n")
				chosen := r.add(&capture.Packet{Interface: group, ID: p.ID, Data: p.Data, Protocol: p.Protocol, Selection: capture.Selection{Sockets: 2, How: how}})
				at := len(r.packets)
				r.packets[at-2], r.packets[at-1] = chosen, p
				if how != capture.SelectorHash {
					r.packets = r.packets[:at-1]
				}
			}
			r.read(udpUser, 1, "0123456789\n")
			return r.explain(t)
		},
		"crowd": func(t testing.TB) *Explanation {
			r := newRecording()
			for i := range 1030 {
				p := r.datagram("0123456789\n")
				p.Src = netip.AddrPortFrom(client.Addr(), uint16(4000+i))
				binary.BigEndian.PutUint16(p.Data, p.Src.Port())
				p.Verdict.Dropped = i%500 == 1 || i >= talksLimit
			}
			return explained(t, r.file(t), Options{Packets: 1, Connections: 3})
		},
		"chosen alone": func(t testing.TB) *Explanation {
			r := newRecording()
			group := &capture.Interface{Kind: "udp", View: capture.ViewSelect, Layer: capture.LayerTransport, Description: synthetic, Members: 2}
			for range 2 {
				p := r.datagram("0123456789\n")
				p.Interface, p.Selection = group, capture.Selection{Sockets: 2, How: capture.SelectorHash, Refused: true, Asked: 7}
			}
			return r.explain(t)
		},
		"stopped for a reason": func(t testing.TB) *Explanation {
			r := newRecording()
			r.interfaces = []*capture.Interface{udpKernel, udpUser}
			for _, reason := range []string{"NETFILTER_DROP", ""} {
				p := r.unseen(r.datagram("stopped"))
				r.framed(capture.Inbound, p, udpWire).Time -= int64(time.Second)
				if reason != "" {
					r.freed(capture.Inbound, p, reason)
				}
			}
			p := r.datagram("0123456789\n")
			r.framed(capture.Inbound, p, udpWire)
			r.read(udpUser, p.ID, "0123456789\n")
			return r.explain(t)
		},
		"all stopped for a reason": func(t testing.TB) *Explanation {
			r := newRecording()
			r.interfaces = []*capture.Interface{udpKernel, udpUser}
			p := r.unseen(r.datagram("stopped"))
			r.framed(capture.Inbound, p, udpWire).Time -= int64(time.Second)
			r.freed(capture.Inbound, p, "NETFILTER_DROP")
			r.datagram("0123456789\n")
			r.read(udpUser, r.ids, "0123456789\n")
			return r.explain(t)
		},
		"held back": func(t testing.TB) *Explanation {
			r := newRecording()
			r.interfaces = []*capture.Interface{tcpWire, tcpUser}
			p := r.segment(1000, header.ACK, "question")
			r.packets = nil
			r.framed(capture.Inbound, p, tcpWire)
			r.hooked(capture.Inbound, p)
			r.read(tcpUser, p.ID, "question")
			answer := r.unseen(r.segment(5000, header.ACK, "answer"))
			r.hooked(capture.Outbound, answer)
			r.freed(capture.Outbound, answer, "QDISC_DROP")
			return r.explain(t)
		},
	})
}
