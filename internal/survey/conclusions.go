package survey

import (
	"fmt"
	"slices"
	"strings"
)

// Conclusion is a sentence and the rows of the table that support it.
type Conclusion struct {
	Text string
	Rows []string
}

// String is the sentence with its rows in brackets.
func (c Conclusion) String() string { return c.Text + " [" + strings.Join(c.Rows, ", ") + "]" }

// Conclusions says in sentences what the report's rows have in common. They cover only
// what was found, not what could not be tried.
func (r *Report) Conclusions() []Conclusion {
	var all []Conclusion
	say := func(rows []string, format string, args ...any) {
		if len(rows) > 0 {
			all = append(all, Conclusion{fmt.Sprintf(format, args...), rows})
		}
	}
	r.concludeLayers(say)
	r.concludeReach(say)
	r.concludeDirections(say)
	r.concludeUserspace(say)
	r.concludeVerdicts(say)
	r.concludeSizes(say)
	r.concludeBeside(say)
	r.concludeRest(say)
	r.concludeHooks(say)
	return all
}

type sayer func(rows []string, format string, args ...any)

// rows names the sockets for which a condition holds.
func (r *Report) rows(holds func(*Socket) bool) []string {
	var names []string
	for i := range r.Sockets {
		if holds(&r.Sockets[i]) {
			names = append(names, r.Sockets[i].Name)
		}
	}
	return names
}

// place is the layer of a header.
type place int

const (
	nowhere place = iota
	linkPlace
	networkPlace
	transportPlace
	messagePlace
)

// placeOf returns the layer of a header in the socket's packets.
func (s *Socket) placeOf(header string) place {
	at := slices.Index(s.Headers, header)
	switch {
	case at < 0:
		return nowhere
	case s.Headers[0] != "Ethernet" || header == payload:
		return messagePlace
	}
	return []place{linkPlace, networkPlace, transportPlace}[min(at, 2)]
}

func (r *Report) concludeLayers(say sayer) {
	for _, p := range []struct {
		place place
		text  string
	}{
		{linkPlace, "Offset 0 is the link header."},
		{networkPlace, "Offset 0 is the network header."},
		{transportPlace, "Offset 0 is the transport header: the network header is not among the filter's bytes."},
		{messagePlace, "Offset 0 is the message itself, which has no header of a network."},
	} {
		say(r.rows(func(s *Socket) bool { return s.Offset0 != "" && s.placeOf(s.Offset0) == p.place }), "%s", p.text)
	}
}

func (r *Report) concludeReach(say sayer) {
	say(r.rows(func(s *Socket) bool {
		return s.placeOf(s.Offset0) == transportPlace && s.Below.relative() && s.Below.legacy()
	}), "The filter does reach the network and the link header below offset 0, with bpf_skb_load_bytes_relative as well as with the absolute loads at SKF_NET_OFF and SKF_LL_OFF.")
	say(r.rows(func(s *Socket) bool {
		return s.placeOf(s.Offset0) == networkPlace && s.Below.relative() && s.Below.legacy()
	}), "The filter reaches the link header below offset 0 in both ways.")
	say(r.rows(func(s *Socket) bool {
		return s.Below != nil && s.Offset0 != "" && s.placeOf(s.Offset0) != messagePlace && s.Below.relative() != s.Below.legacy()
	}), "One of the two ways to headers below offset 0 works and the other does not.")
	say(r.rows(func(s *Socket) bool { return s.Below.has(ReachedSelf) }),
		"There is no header below offset 0, and yet loads there succeed: they return the bytes from offset 0 on. Success alone proves nothing.")
	say(r.rows(func(s *Socket) bool { return s.Below.has(ReachedOther) }),
		"Loads below offset 0 succeed and return bytes that are no header: success alone proves nothing.")
	say(r.rows(func(s *Socket) bool {
		return s.Below != nil && s.Below.RelativeLink == ReachedNone && s.Below.LegacyLink == ReachedNone
	}), "Loads from the link header on fail; absolute ones end the program with 0, which drops the packet.")
}

// has tells whether one of the four ways had this outcome.
func (b *Below) has(reach string) bool {
	return b != nil && (b.RelativeNet == reach || b.RelativeLink == reach || b.LegacyNet == reach || b.LegacyLink == reach)
}

func (b *Below) relative() bool {
	return b != nil && b.RelativeNet == ReachedBytes && b.RelativeLink == ReachedBytes
}

func (b *Below) legacy() bool {
	return b != nil && b.LegacyNet == ReachedBytes && b.LegacyLink == ReachedBytes
}

func (r *Report) concludeDirections(say sayer) {
	say(r.rows(func(s *Socket) bool { return slices.Equal(s.Directions, []string{"in"}) }),
		"The filter sees only what the host receives.")
	say(r.rows(func(s *Socket) bool { return slices.Contains(s.Directions, "out") }),
		"The filter sees what the host sends as well as what it receives.")
	say(r.rows(func(s *Socket) bool { return s.saw("handshake ACK", toSocket) == "all" && s.sawAll(toSocket) }),
		"The filter sees every segment to the socket, from the SYN and the ACK that ends the handshake to the last ACK.")
	say(r.rows(func(s *Socket) bool { return s.Inherits != "" && s.saw("SYN-ACK", toPeer) == "none" }),
		"The filter sees no segment that the socket sends.")
	say(r.rows(func(s *Socket) bool { return s.saw("echo reply", "") == "all" && s.saw("echo request", "") == "none" }),
		"The filter sees the echo reply and not the request.")
	say(r.rows(func(s *Socket) bool { return s.Inherits == "yes" }), "What a listener accepts inherits its filter.")
	say(r.rows(func(s *Socket) bool { return s.Inherits == "no" }),
		"What a listener accepts does not inherit its filter: messages sent before it gets its own pass unseen.")
}

// saw tells whether the filter saw all, some or none of a kind of packet; empty if there
// was none.
func (s *Socket) saw(packet, to string) string {
	for _, x := range s.Exchange {
		if x.Packet == packet && x.To == to {
			return x.Filter
		}
	}
	return ""
}

// sawAll tells whether the filter saw every packet to one end of the exchange.
func (s *Socket) sawAll(to string) bool {
	return !slices.ContainsFunc(s.Exchange, func(x Exchanged) bool { return x.To == to && x.Filter != "all" })
}

func (r *Report) concludeUserspace(say sayer) {
	say(r.rows(func(s *Socket) bool { return s.Userspace != nil && s.Userspace.Same }),
		"Userspace gets the very bytes that the filter saw.")
	say(r.rows(func(s *Socket) bool {
		return s.Userspace != nil && s.Userspace.MissingFront > 0 && s.Userspace.MissingEnd == 0
	}),
		"Userspace gets less than the filter saw: the transport header is missing in front, nothing at the end.")
	say(r.rows(func(s *Socket) bool { return s.Userspace != nil && s.Userspace.MissingEnd > 0 }),
		"Userspace gets less than the filter saw: bytes are missing at the end.")
}

// outcome returns the outcome of a verdict.
func (s *Socket) outcome(keep int) (Outcome, bool) {
	for _, o := range s.Verdicts {
		if o.Keep == keep {
			return o, true
		}
	}
	return Outcome{}, false
}

func (r *Report) concludeVerdicts(say sayer) {
	with := func(keep int, holds func(s *Socket, o Outcome) bool) []string {
		return r.rows(func(s *Socket) bool {
			o, ok := s.outcome(keep)
			return ok && holds(s, o)
		})
	}
	say(with(0, func(_ *Socket, o Outcome) bool { return o.Messages == 0 && o.Probe == "ok" }),
		"A filter that returns 0 keeps the packet from userspace, and the sender does not notice.")
	say(with(0, func(_ *Socket, o Outcome) bool { return o.Messages == 0 && o.Probe != "ok" }),
		"A filter that returns 0 keeps the packet from the protocol as well: nobody can connect any more.")
	say(with(8, func(s *Socket, o Outcome) bool {
		return s.Userspace != nil && s.Userspace.Same && o.Messages > 0 && o.Bytes == 8*o.Messages
	}),
		"A filter that returns 8 leaves userspace the first 8 bytes of what the filter saw.")
	say(with(8, func(s *Socket, o Outcome) bool {
		return s.Userspace != nil && !s.Userspace.Same && o.Messages > 0 && o.Bytes == 0
	}),
		"A filter that returns 8 leaves the header of 8 bytes, so userspace gets an empty message: the verdict counts from offset 0.")
	say(with(8, func(_ *Socket, o Outcome) bool { return o.Probe != "ok" }),
		"A filter that returns 8 lets a connection come about, since the header stays whole, but no byte of the stream reaches userspace, and the sender gets no answer.")
}

func (r *Report) concludeSizes(say sayer) {
	say(r.rows(func(s *Socket) bool { return s.Large != nil && s.Large.Longer }),
		"The filter sees segments longer than the MTU, which loopback does not cut; gso_size says where a network would.")
	say(r.rows(func(s *Socket) bool { return s.Empty != nil && s.Empty.Filter >= 0 && s.Empty.Messages > 0 }),
		"A message without payload runs the filter and reaches userspace.")
	say(r.rows(func(s *Socket) bool { return s.Empty != nil && s.Empty.Ended }),
		"A message without payload runs the filter, and recvmsg returns 0 as at the end of the connection.")
	say(r.rows(func(s *Socket) bool { return s.Fragments != nil && s.Fragments.Longest > s.Fragments.Payload }),
		"Fragments are reassembled before the filter runs: it sees one packet, longer than the MTU.")
	say(r.rows(func(s *Socket) bool { return s.Fragments != nil && s.Fragments.Longest <= s.Fragments.MTU+14 }),
		"The filter sees each fragment by itself.")
}

func (r *Report) concludeRest(say sayer) {
	say(r.rows(func(s *Socket) bool { return s.Status == Unfiltered }),
		"The socket takes a filter and never runs it: userspace gets everything.")
	say(r.rows(func(s *Socket) bool { return s.Status == Refused }), "The socket takes no filter.")
	say(r.rows(func(s *Socket) bool { return s.Status == Absent }), "This kernel has no such sockets.")
	say(r.rows(func(s *Socket) bool { return s.Status == Unprobed }),
		"The socket takes a filter, but there is no way on this machine to send it something.")
}
