package explain

import (
	"fmt"
	"slices"
	"time"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// Wire is what was on the interfaces of the machine. A packet that passed several has a frame on each.
type Wire struct {
	// Received and Sent count the frames by direction.
	Received uint64 `json:"received"`
	Sent     uint64 `json:"sent"`
	// Devices are the interfaces, at most eight.
	Devices []string `json:"interfaces"`
	// Stopped are the packets that came in and that no filter or hook of the sockets saw, and
	// Bytes of them is payload. It is zero if the file has no view of those.
	Stopped Count `json:"never_at_the_filter"`
	// Explained are those of Stopped of which the file has the kernel's reason.
	Explained Count `json:"never_at_the_filter_with_a_reason"`
	// AtEnd are those that came so shortly before the end of the capture that the filter may have
	// seen them after it.
	AtEnd Count `json:"at_the_end"`
	// Missed are the packets that a hook saw being sent and that were on no interface as they were.
	Missed Count `json:"not_on_an_interface"`
	// Held are those of Missed of which the file has the kernel's reason to drop them.
	Held Count `json:"not_on_an_interface_with_a_reason"`
	// About are ICMP messages that quote a packet of the sockets, and Pieces fragments, of which
	// the sockets get the whole.
	About  Count `json:"icmp_about_them"`
	Pieces Count `json:"fragments"`
	// Climb is the time from the first interface to the filter, or to the hook before it, of each
	// packet that came there. It is absent if there is none, and without real times.
	Climb *Latency `json:"to_the_filter,omitempty"`
	// Lost counts frames that are not in the file.
	Lost uint64 `json:"lost"`
}

// wirePacket handles a frame of the wire view that is joined to other views by its id.
func (s *socket) wirePacket(p *capture.Packet) {
	if s.out.Wire == nil {
		s.out.Wire = &Wire{Devices: []string{}}
	}
	w := s.out.Wire
	if device := shortened(p.Interface.Device); device != "" && len(w.Devices) < namesLimit && !slices.Contains(w.Devices, device) {
		w.Devices = append(w.Devices, device)
	}
	if p.Direction == capture.Outbound {
		w.Sent++
	} else {
		w.Received++
	}
	frame := *p
	d := dissect(p.Interface.Layer, p.Protocol, p.Data, p.Len)
	if d.end < max(p.Len, len(p.Data)) { // the rest is padding, which nobody else sees
		frame.Data, frame.Len = p.Data[:min(d.end, len(p.Data))], d.end
	}
	switch e := s.find(p); {
	case e == nil:
		s.newFrame(&frame, &d)
	case e.seen[capture.ViewWire]: // on another interface
	case e.departed:
		e.seen[capture.ViewWire] = true
		e.note(&frame, max(frame.Len, len(frame.Data))-e.length, true)
	default:
		s.sameView(e, &frame)
	}
}

// newFrame enters a packet of which there is nothing else yet.
func (s *socket) newFrame(p *capture.Packet, d *dissection) {
	if p.Direction == capture.Outbound {
		s.departs(p, d)
		return
	}
	e := s.newEntry(p, d)
	e.piece = isPiece(p)
	e.about = isAbout(s.out.Kind, d)
	if !s.seesFilter() {
		s.reach(e, p)
	}
}

// seesFilter tells whether the file has a view of what came to a filter or a hook.
func (s *socket) seesFilter() bool {
	for _, v := range []capture.View{capture.ViewKernel, capture.ViewNet, capture.ViewLink, capture.ViewCgroup} {
		if s.views[v] != nil {
			return true
		}
	}
	return s.analysis.announces(s.out.Kind)
}

// isPiece tells whether a frame has a fragment of a packet.
func isPiece(p *capture.Packet) bool {
	at := 0
	if p.Interface.Layer == capture.LayerLink {
		_, at = header.Ethernet(p.Data)
	}
	ip, ok := header.ParseIP(p.Data[at:])
	return ok && ip.Fragment
}

// isAbout tells whether a packet is a message of ICMP for sockets of another protocol.
func isAbout(kind string, d *dissection) bool {
	k, ok := capture.KindByName(kind)
	if !ok || k.TakesProtocol() {
		return false
	}
	return (d.protocol == header.ProtocolICMP || d.protocol == header.ProtocolICMPv6) && k.Protocol() != d.protocol
}

// wayUp is within how many nanoseconds a packet comes from an interface to the filter.
const wayUp = int64(50 * time.Millisecond)

// onWireOnly tells whether a packet that came was seen on an interface and nowhere else.
func (e *entry) onWireOnly() bool { return e.framed && !e.reached && !e.delivered && e.got == 0 }

// settleFrame counts a packet that was on an interface only.
func (e *entry) settleFrame() (fate string) {
	w := e.socket.out.Wire
	switch {
	case e.about:
		w.About.add(e.id, 0)
		return "an ICMP message about a packet of the socket"
	case e.piece:
		w.Pieces.add(e.id, 0)
		return "a piece of a packet, which sockets get whole"
	}
	payload := uint64(max(e.end-e.payload, 0))
	if ended := e.socket.analysis.ended; ended != 0 && e.number > e.socket.lastReached && ended-e.time < wayUp {
		w.AtEnd.add(e.id, payload)
		return "it was on the wire just before the capture ended"
	}
	w.Stopped.add(e.id, payload)
	e.lose(laneStopped)
	if e.reason != "" {
		w.Explained.add(e.id, payload)
	}
	return "it was on the wire and never came to the filter" + e.because()
}

// finishWire adds what the statistics say.
func (s *socket) finishWire() {
	v := s.views[capture.ViewWire]
	if v == nil {
		return
	}
	if s.out.Wire == nil {
		s.out.Wire = &Wire{Devices: []string{}}
	}
	if s.out.Timed {
		s.out.Wire.Climb = s.climbs.latency()
	}
	s.out.Wire.Lost = s.lossOf(capture.ViewWire)
}

// whyStopped says why packets of the interfaces never came to the filter: what the kernel says, and where it
// says nothing, what may be.
func (s *socket) whyStopped() string {
	w, text := s.out.Wire, ":"
	switch known := w.Explained.Packets; {
	case known == w.Stopped.Packets:
		return ": the kernel's reason stands with drop"
	case known > 0:
		text = fmt.Sprintf(": the kernel's reason for %s stands with drop; otherwise", w.Explained.named())
	}
	text += " a firewall stops packets on that way, a wrong checksum, or the end of the connection"
	if s.mayLack(capture.ViewKernel) {
		text += "; or the capture has lost what the filter saw"
	}
	return text
}

func (s *socket) sayWire() Finding {
	f := Finding{Topic: "wire"}
	w := s.out.Wire
	if w == nil {
		return f
	}
	on := ""
	if len(w.Devices) > 0 {
		on = " (" + printable(list(w.Devices)) + ")"
	}
	f.Text = fmt.Sprintf("On the wire%s were %s that came in and %s that went out.", on, quantity(w.Received, "frame", "frames"), digits(w.Sent))
	if c := w.Climb; c != nil && c.Reads > 0 {
		f.Text += fmt.Sprintf(" From there to the filter: median %s, at most %s.", duration(c.Median), duration(c.Most))
	}
	if n := w.Stopped.Packets; n > 0 {
		f.Warning = true
		f.Text += fmt.Sprintf(" %s %s on the wire and never came to the filter (%s)", packetsOf(n), plural(n, "was", "were"), w.Stopped.named())
		f.Text += s.whyStopped() + "."
	}
	if n := w.Missed.Packets; n > 0 {
		f.Text += fmt.Sprintf(" Sent, and not on an interface as the hook saw %s: %s.", plural(n, "it", "them"), w.Missed.named())
		if n > w.Held.Packets {
			f.Text += " What is dropped behind the hook is not there, and what is cut up is there in pieces."
		}
		if w.Held.Packets > 0 {
			f.Text += fmt.Sprintf(" The kernel dropped %s, and its reason stands with drop.", w.Held.named())
		}
	}
	if w.About.Packets > 0 {
		f.Text += fmt.Sprintf(" About packets of the socket there was ICMP in %s.", w.About.named())
	}
	if w.Pieces.Packets > 0 {
		f.Text += fmt.Sprintf(" Pieces of what sockets get whole: %s.", w.Pieces.named())
	}
	f.Warning = f.Warning || s.mayLack(capture.ViewWire)
	f.Text += s.sayLoss(capture.ViewWire, quantity(w.Lost, "frame", "frames"))
	return f
}
