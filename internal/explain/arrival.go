package explain

import (
	"bytes"

	"github.com/ebpfdump/ebpfdump/capture"
)

// kernelPacket handles a packet of the kernel's views.
func (s *socket) kernelPacket(p *capture.Packet) {
	if p.Interface.View == capture.ViewDrop {
		s.dropPacket(p)
		return
	}
	if p.Interface.View == capture.ViewCgroup && s.cgroupPacket(p) {
		return
	}
	if p.Interface.View == capture.ViewSelect {
		s.selectPacket(p)
		return
	}
	if p.Interface.View == capture.ViewWire {
		if p.ID != 0 { // else it passed the interface, and belongs to no packet
			s.wirePacket(p)
		}
		return
	}
	s.countAnswer(p)
	if p.Interface.View == capture.ViewKernel {
		s.countFilter(p)
	}
	e := s.find(p)
	if e == nil || e.seen[p.Interface.View] || e.departed {
		s.newPacket(p)
		return
	}
	s.sameView(e, p)
}

// sameView handles another view of a packet.
func (s *socket) sameView(e *entry, p *capture.Packet) {
	if p.Interface.View != capture.ViewWire && p.Interface.View != capture.ViewSelect && e.framed && !e.reached {
		s.reach(e, p)
	}
	e.seen[p.Interface.View] = true
	e.talk.filtered = e.talk.filtered || p.Interface.View == capture.ViewKernel
	before, agrees := e.compareView(p)
	if p.Interface.View == capture.ViewKernel {
		e.verdict = keptBytes(p.Verdict)
	}
	e.begins[p.Interface.View], e.agrees[p.Interface.View] = int32(before), agrees
	switch {
	case !agrees:
		s.views[p.Interface.View].out.Disagree++
	case p.Interface.View == capture.ViewKernel:
		e.offset0 = -before
		for v, agrees := range e.agrees {
			if agrees {
				s.views[v].before(int(e.begins[v]) + e.offset0)
			}
		}
	case e.seen[capture.ViewKernel]:
		s.views[p.Interface.View].before(before + e.offset0)
	}
	e.note(p, before, agrees)
}

func (s *socket) newPacket(p *capture.Packet) {
	d := dissect(p.Interface.Layer, p.Protocol, p.Data, p.Len)
	e := s.newEntry(p, &d)
	if p.Interface.View == capture.ViewKernel {
		s.views[capture.ViewKernel].before(0)
	}
	s.reach(e, p)
}

// newEntry enters a packet that came in, or that the filter saw.
func (s *socket) newEntry(p *capture.Packet, d *dissection) *entry {
	e := &entry{
		socket: s, id: p.ID, time: p.Time, direction: p.Direction, src: p.Src, dst: p.Dst,
		first: p.Interface, data: bytes.Clone(p.Data), length: max(p.Len, len(p.Data)),
		payload: d.payload, end: d.end, protocol: d.protocol, verdict: keptBytes(p.Verdict),
		framed: p.Interface.View == capture.ViewWire || p.Interface.View == capture.ViewSelect,
	}
	e.tcp, e.isTCP = d.tcp(p.Data)
	e.seen[p.Interface.View], e.agrees[p.Interface.View] = true, true
	s.highest = max(s.highest, p.ID)
	if p.ID != 0 && !s.twins.add(e) {
		s.out.Ambiguous.add(p.ID, uint64(e.length))
		if len(s.ambiguous) < rememberedIDs {
			s.ambiguous[p.ID] = true
		}
	}
	s.enter(e)
	e.talk.filtered = e.talk.filtered || p.Interface.View == capture.ViewKernel
	e.note(p, 0, true)
	return e
}

// reach counts a packet that came to the socket's filter or its hook, as this view has it.
func (s *socket) reach(e *entry, p *capture.Packet) {
	e.reached = true
	s.lastReached = e.number
	e.verdict = keptBytes(p.Verdict)
	if e.framed && p.Interface.View != capture.ViewWire {
		if e.first.View == capture.ViewWire {
			s.climbs.add(p.Time - e.time)
		}
		e.time = p.Time
	}
	if len(s.protocols) < 256 {
		s.protocols[e.protocol] = true
	}
	s.out.Packets++
	s.out.countMetadata(p)
	if s.stream && e.isTCP && e.verdict != 0 {
		s.streams.saw(e)
	}
}

// compareView returns how many bytes another view of the packet has before the first
// view, and whether both are equal from there on. All views of a packet end with the same
// byte.
func (e *entry) compareView(p *capture.Packet) (before int, agrees bool) {
	before = max(p.Len, len(p.Data)) - e.length
	a, b := e.data, p.Data
	if before > 0 {
		b = b[min(before, len(b)):]
	} else {
		a = a[min(-before, len(a)):]
	}
	n := min(len(a), len(b))
	return before, bytes.Equal(a[:n], b[:n])
}
