package explain

import (
	"fmt"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// Cgroup is what the cgroup hooks saw, of both directions.
type Cgroup struct {
	// Received and Sent count the packets by direction.
	Received uint64 `json:"received"`
	Sent     uint64 `json:"sent"`
	// Payload are the packets that brought payload to the peer, and Bytes of it, behind all headers. Of TCP,
	// Handshake, ACK, FIN and RST are the others that were sent.
	Payload   Count `json:"sent_payload"`
	Handshake Count `json:"sent_handshake"`
	ACK       Count `json:"sent_ack"`
	FIN       Count `json:"sent_fin"`
	RST       Count `json:"sent_rst"`
	// Alone are the packets that came to the hook, and that the kernel view does not have.
	Alone Count `json:"not_in_kernel_view"`
	// Lost counts packets that the hooks saw and that are not in the file.
	Lost uint64 `json:"lost"`
}

// cgroupPacket handles a packet of the cgroup view that was sent, which no filter sees and no read
// gets. Those that came in are packets like others, and are not handled.
func (s *socket) cgroupPacket(p *capture.Packet) (handled bool) {
	if s.out.Cgroup == nil {
		s.out.Cgroup = &Cgroup{}
	}
	if p.Direction != capture.Outbound {
		s.out.Cgroup.Received++
		return false
	}
	s.out.Cgroup.Sent++
	d := dissect(p.Interface.Layer, p.Protocol, p.Data, p.Len)
	s.departs(p, &d)
	return true
}

// departs enters a packet that was sent.
func (s *socket) departs(p *capture.Packet, d *dissection) {
	e := &entry{
		socket: s, id: p.ID, time: p.Time, direction: p.Direction, src: p.Src, dst: p.Dst,
		first: p.Interface, length: max(p.Len, len(p.Data)), payload: d.payload, end: d.end, protocol: d.protocol,
		verdict: keepAll, departed: true,
	}
	e.tcp, e.isTCP = d.tcp(p.Data)
	e.seen[p.Interface.View] = true
	s.enter(e)
	e.note(p, 0, true)
}

// settleDeparted counts a packet that was sent.
func (e *entry) settleDeparted() string {
	c, flags := e.socket.out.Cgroup, e.tcp.Flags
	const fate = "the socket sent it: none of its filters sees that"
	if !e.seen[capture.ViewCgroup] {
		return fate // it is known from an interface
	}
	if w := e.socket.out.Wire; w != nil && !e.seen[capture.ViewWire] {
		w.Missed.add(e.id, 0)
		if e.reason != "" {
			w.Held.add(e.id, 0)
		}
	}
	if payload := uint64(max(e.end-e.payload, 0)); payload > 0 || !e.isTCP {
		c.Payload.add(e.id, payload)
	}
	switch {
	case !e.isTCP:
	case flags&header.SYN != 0:
		c.Handshake.add(e.id, 0)
	case flags&header.RST != 0:
		c.RST.add(e.id, 0)
	case flags&header.FIN != 0:
		c.FIN.add(e.id, 0)
	case e.end <= e.payload:
		c.ACK.add(e.id, 0)
	}
	return fate
}

// alone tells whether only the cgroup hook has seen a packet that the kernel view should have: one of a connection
// that this has packets of, or that came between its first and its last one. Others may be of another capture in the
// file, without a kernel view.
func (e *entry) alone() bool {
	kernel := e.socket.views[capture.ViewKernel]
	return e.seen[capture.ViewCgroup] && !e.seen[capture.ViewKernel] && !e.delivered && e.got == 0 &&
		kernel != nil && kernel.out.Packets > 0 && (e.talk.filtered || kernel.begun <= e.time && e.time <= kernel.ended)
}

// finishCgroup adds what the statistics say.
func (s *socket) finishCgroup() {
	v := s.views[capture.ViewCgroup]
	if v == nil {
		return
	}
	if s.out.Cgroup == nil {
		s.out.Cgroup = &Cgroup{}
	}
	s.out.Cgroup.Lost = s.lossOf(capture.ViewCgroup)
}

func (s *socket) sayCgroup() Finding {
	f := Finding{Topic: "cgroup"}
	c := s.out.Cgroup
	if c == nil {
		return f
	}
	f.Text = fmt.Sprintf("The cgroup hooks saw %s come in and %s go out.", packetsOf(c.Received), digits(c.Sent))
	var words []string
	say := func(c Count, what string) {
		if c.Packets > 0 {
			words = append(words, what+" ("+c.named()+")")
		}
	}
	say(c.Handshake, "the handshake")
	say(c.ACK, "ACKs without payload")
	payload := bytesOf(c.Payload.Bytes) + " of payload"
	if s.makesHeaders() {
		payload += " behind all headers"
	}
	say(c.Payload, payload)
	say(c.FIN, "the FIN")
	say(c.RST, "the reset")
	if len(words) > 0 {
		f.Text += " Sent were " + list(words) + "."
	}
	if c.Alone.Packets > 0 {
		f.Text += fmt.Sprintf(" Not in the kernel view, although the hook saw %s come: %s.", plural(c.Alone.Packets, "it", "them"), c.Alone.named())
	}
	f.Warning = f.Warning || s.mayLack(capture.ViewCgroup)
	f.Text += s.sayLoss(capture.ViewCgroup, packetsOf(c.Lost))
	return f
}
