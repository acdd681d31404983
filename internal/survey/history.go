package survey

import (
	"slices"
	"strings"
)

// Verdicts on a finding of 2017.
const (
	Confirmed = "confirmed"
	Changed   = "changed"
	Refuted   = "refuted"
	NotTried  = "not tried"
)

// Finding is one of the findings of 2017, from the experiment that this project grew out
// of (AlexanderKurtz/ebpf-dump), and whether it holds on this kernel.
type Finding struct {
	// Claim is what was found in 2017.
	Claim string
	// Verdict is one of the constants above, Evidence the reason for it.
	Verdict, Evidence string
	// Rows are the rows of the table with the evidence.
	Rows []string
}

// history says what the findings are about.
const history = "What an experiment of 2017 found, and whether it is so here: from which header on a filter on a SOCK_RAW, SOCK_STREAM or SOCK_DGRAM " +
	"socket of IPv4 sees packets, and what of them userspace gets."

// claim2017 is a claim and a function that checks it against a row.
type claim2017 struct {
	claim string
	rows  []string
	check func(*Socket) (verdict, evidence string)
}

var claims2017 = []claim2017{
	{"A filter on a raw socket (SOCK_RAW, IPv4) sees the packet from the IPv4 header on.", []string{"raw/tcp", "raw/udp"}, offset0("IPv4")},
	{"A filter on a TCP socket (SOCK_STREAM) sees the packet from the TCP header on.", []string{"tcp"}, offset0("TCP")},
	{"A filter on a UDP socket (SOCK_DGRAM) sees the packet from the UDP header on.", []string{"udp"}, offset0("UDP")},
	{"Userspace gets the whole IP packet from a raw socket.", []string{"raw/tcp", "raw/udp"}, userspaceFrom("IPv4")},
	{"Userspace gets only the payload from a TCP socket.", []string{"tcp"}, userspaceFrom(payload)},
	{"Userspace gets only the payload from a UDP socket.", []string{"udp"}, userspaceFrom(payload)},
	{"Of a TCP handshake, the filter is shown no final ACK.", []string{"tcp"}, finalACK},
	{"Filters on TCP and UDP sockets cannot look at the headers of the layers below.", []string{"tcp", "udp"}, lowerHeaders},
}

// Findings2017 checks the findings of 2017 one by one.
func (r *Report) Findings2017() []Finding {
	var all []Finding
	for _, c := range claims2017 {
		f := Finding{Claim: c.claim, Verdict: NotTried, Evidence: "no packets of this kind of socket in this survey"}
		var evidence []string
		for _, name := range c.rows {
			socket, ok := r.Socket(name)
			if !ok || socket.Status != Filtered {
				continue
			}
			verdict, found := c.check(socket)
			if f.Verdict == NotTried || verdict != Confirmed {
				f.Verdict = verdict
			}
			f.Rows = append(f.Rows, name)
			evidence = append(evidence, found)
		}
		if len(evidence) > 0 {
			f.Evidence = joinEvidence(f.Rows, evidence)
		}
		all = append(all, f)
	}
	return all
}

// joinEvidence states evidence that rows share only once.
func joinEvidence(rows, evidence []string) string {
	var sentences []string
	for i, found := range evidence {
		if slices.Contains(evidence[:i], found) {
			continue
		}
		var names []string
		for j := range evidence {
			if evidence[j] == found {
				names = append(names, rows[j])
			}
		}
		sentences = append(sentences, strings.Join(names, ", ")+": "+found)
	}
	return strings.Join(sentences, "; ")
}

// agrees is the verdict on something that 2017 observed.
func agrees(yes bool) string {
	if yes {
		return Confirmed
	}
	return Changed
}

func offset0(header string) func(*Socket) (string, string) {
	return func(s *Socket) (string, string) {
		return agrees(s.Offset0 == header), "offset 0 is the " + describeHeader(s.Offset0)
	}
}

func userspaceFrom(header string) func(*Socket) (string, string) {
	return func(s *Socket) (string, string) {
		if s.Userspace == nil {
			return Changed, "userspace gets nothing"
		}
		return agrees(s.Userspace.From == header), "recvmsg returns the " + describeHeader(s.Userspace.From) + " first"
	}
}

func describeHeader(name string) string {
	switch name {
	case payload, nlmsghdr:
		return name
	}
	return name + " header"
}

func finalACK(s *Socket) (string, string) {
	switch s.saw("handshake ACK", toSocket) {
	case "all":
		return Changed, "the filter ran for the ACK that answers the SYN-ACK"
	case "none":
		return Confirmed, "the ACK that answers the SYN-ACK was on the wire, and the filter did not run for it"
	}
	return NotTried, "no such ACK was on the wire"
}

// lowerHeaders: the claim is that a filter cannot do it at all, so one way that works
// refutes it.
func lowerHeaders(s *Socket) (string, string) {
	var ways []string
	if s.Below.relative() {
		ways = append(ways, "bpf_skb_load_bytes_relative")
	}
	if s.Below.legacy() {
		ways = append(ways, "absolute loads at SKF_NET_OFF and SKF_LL_OFF")
	}
	if len(ways) == 0 {
		return Confirmed, "neither way to lower headers works"
	}
	return Refuted, "the filter got the very bytes of the IP and the link header with " + strings.Join(ways, " and with ") +
		"; at offset 0 and after it there is only the transport header and its payload"
}
