package explain

import (
	"fmt"
	"slices"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/header"
	"github.com/ebpfdump/ebpfdump/internal/remark"
)

// Sent is what sending calls took.
type Sent struct {
	// Calls counts the calls that took something, and Bytes what they took: of ping and raw sockets also the headers
	// that the process makes.
	Calls uint64 `json:"calls"`
	Bytes uint64 `json:"bytes"`
	// Unseen is how many of those bytes are not in the file, as those of sendfile.
	Unseen uint64 `json:"bytes_not_in_file"`
	// Names are those of the calls, at most eight.
	Names []string `json:"names"`
	// Failed counts the calls that failed, and Error is what is said of the first of them.
	Failed uint64 `json:"failed"`
	Error  string `json:"first_error,omitempty"`
	// Lost counts what was sent and is not in the file.
	Lost uint64 `json:"lost"`
}

// namesLimit bounds the names of calls.
const namesLimit = 8

// sentPacket handles a packet of the sent view.
func (s *socket) sentPacket(p *capture.Packet) {
	if s.out.Sent == nil {
		s.out.Sent = &Sent{Names: []string{}}
	}
	sent := s.out.Sent
	length := max(p.Len, len(p.Data))
	if failed(p) {
		sent.Failed++
		if sent.Error == "" {
			sent.Error = remark.Facts(p)
		}
	} else {
		sent.Calls++
		s.talk(p.Direction, p.Src, p.Dst).sends(p)
		sent.Bytes += uint64(length)
		sent.Unseen += uint64(length - len(p.Data))
		if name := shortened(p.Call); name != "" && len(sent.Names) < namesLimit && !slices.Contains(sent.Names, name) {
			sent.Names = append(sent.Names, name)
		}
	}
	e := &entry{
		socket: s, time: p.Time, direction: p.Direction, src: p.Src, dst: p.Dst, protocol: p.Protocol,
		verdict: keepAll, delivered: true, sent: true,
	}
	e.seen[capture.ViewSent] = true
	s.enter(e)
	s.sends++
	e.addPart(p, s.sends, 0, 0, length)
}

// finishSent adds what the statistics say.
func (s *socket) finishSent() {
	v := s.views[capture.ViewSent]
	if v == nil {
		return
	}
	if s.out.Sent == nil {
		s.out.Sent = &Sent{Names: []string{}}
	}
	s.out.Sent.Lost = s.lossOf(capture.ViewSent)
}

func (s *socket) saySent() Finding {
	f := Finding{Topic: "sent"}
	sent := s.out.Sent
	if sent == nil {
		return f
	}
	if sent.Calls == 0 {
		f.Text = s.sayNothing(capture.ViewSent, "Nothing was sent.")
	} else {
		f.Text = fmt.Sprintf("What went out are %s in %s (%s)", bytesOf(sent.Bytes), callsOf(sent.Calls), list(sent.Names))
		if s.makesHeaders() {
			f.Text += ", with the headers that the process made itself"
		}
		f.Text += "."
	}
	if sent.Unseen > 0 {
		f.Text += fmt.Sprintf(" Of %s the file has only the number.", bytesOf(sent.Unseen))
	}
	if sent.Failed > 0 {
		f.Text += fmt.Sprintf(" Sending failed in %s. The first error was ", callsOf(sent.Failed)) + sent.Error + "."
	}
	f.Warning = f.Warning || s.mayLack(capture.ViewSent)
	f.Text += s.sayLoss(capture.ViewSent, quantity(sent.Lost, "piece", "pieces"))
	return f
}

// makesHeaders tells whether a process makes headers itself that go out behind IP's, or IP's as well: so calls take more than the payload.
func (s *socket) makesHeaders() bool {
	k, known := capture.KindByName(s.out.Kind)
	return known && (k.TakesProtocol() || k.Protocol() == header.ProtocolICMP || k.Protocol() == header.ProtocolICMPv6)
}

// saidSent is a line about a call that sent something.
func (p *part) saidSent() string {
	line := fmt.Sprintf("send %d: %s took %s", p.read, p.call, bytesOf(uint64(p.whole)))
	if p.failed {
		line = fmt.Sprintf("send %d", p.read)
	}
	if p.comment != "" {
		line += "; " + p.comment
	}
	return line
}
