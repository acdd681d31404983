package explain

import (
	"maps"
	"net/netip"
	"testing"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// Scenes of sockets whose processes see headers.
func init() {
	maps.Copy(scenes, map[string]func(testing.TB) *Explanation{
		// A ping socket's calls take the ICMP header as well, which is no payload.
		"ping": func(t testing.TB) *Explanation {
			r := newRecording()
			kernel := &capture.Interface{Kind: "icmp", View: capture.ViewKernel, Layer: capture.LayerTransport, Description: synthetic}
			message := "\x00\x00\x00\x00\x00\x07\x00\x010123456789\n"
			r.send(messages("icmp", capture.ViewSent), "sendto", message)
			for i, on := range []*capture.Interface{hooks("icmp"), kernel} {
				p := r.add(&capture.Packet{Interface: on, ID: uint64(i + 1), Data: []byte(message), Protocol: header.ProtocolICMP})
				if on.View == capture.ViewCgroup {
					head := ipv4Header(20 + len(message))
					head[9] = header.ProtocolICMP
					p.Data, p.Direction, p.Src, p.Dst = append(head, message...), capture.Outbound, server, client
					p.Len = len(p.Data)
				}
				p.Src, p.Dst = netip.AddrPortFrom(p.Src.Addr(), 0), netip.AddrPortFrom(p.Dst.Addr(), 0)
			}
			r.read(messages("icmp", capture.ViewUser), 2, message).Protocol = header.ProtocolICMP
			return r.explain(t)
		},
		// tcpdump's socket, whose filter runs inside the tap: nobody follows what it reads. Beside it a packet socket of our own.
		"not followed":  func(t testing.TB) *Explanation { return wrapped(true).explain(t) },
		"none followed": func(t testing.TB) *Explanation { return wrapped(false).explain(t) },
	})
}

// hooks is the cgroup view of a kind.
func hooks(kind string) *capture.Interface {
	return &capture.Interface{Kind: kind, View: capture.ViewCgroup, Layer: capture.LayerNetwork}
}

// wrapped is what a packet socket of another process got, of which the filter drops the second frame and truncates the
// third; with a socket of our own beside it that reads.
func wrapped(beside bool) *recording {
	r := newRecording()
	kernel := &capture.Interface{
		Kind: "packet", View: capture.ViewKernel, Layer: capture.LayerLink,
		Description: "frames as the socket filter sees them, from offset 0; process 12 (tcpdump), descriptor 3, without an address",
	}
	own := &capture.Interface{Kind: "packet", View: capture.ViewKernel, Layer: capture.LayerLink}
	frame := func(on *capture.Interface, payload string) *capture.Packet {
		d := r.unseen(r.datagram(payload))
		data := append(append(append(make([]byte, 12), 8, 0), ipv4Header(20+len(d.Data))...), d.Data...)
		return r.add(&capture.Packet{Interface: on, ID: d.ID, Data: data, Protocol: header.ProtocolUDP})
	}
	frame(kernel, "not followed")
	frame(kernel, "dropped").Verdict.Dropped = true
	frame(kernel, "truncated").Verdict = capture.Verdict{Keep: 44, Of: 51}
	if beside {
		p := frame(own, "read")
		r.read(messages("packet", capture.ViewUser), p.ID, string(p.Data)).Protocol = 0
	}
	frame(kernel, "not followed")
	return r
}
