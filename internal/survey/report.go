package survey

// Schema is the version of Report. It goes up when a field changes its meaning
// or goes away; a new field alone leaves it as it is.
const Schema = 1

// Report is what a survey found on one kernel, and what its JSON holds. All of
// it but System is the same in every run on the same kernel: there are no
// times, ports, addresses of peers or counts that depend on chance.
type Report struct {
	// Schema is the version of this structure.
	Schema int `json:"schema"`
	// System is where the survey ran. Compare does not look at it.
	System System `json:"system"`
	// Fields says what the verifier lets a socket filter read, in the order of
	// struct __sk_buff.
	Fields []Field `json:"fields"`
	// Sockets has an entry for each kind of socket, in the order of the table.
	Sockets []Socket `json:"sockets"`
}

// System is a kernel and the program that looked at it.
type System struct {
	// Kernel is the release, as uname -r prints it.
	Kernel string `json:"kernel"`
	// Machine is the architecture, as uname -m prints it.
	Machine string `json:"machine"`
	// Program is the name and version of what made the report.
	Program string `json:"program"`
}

// Field is a field of struct __sk_buff, or behind its sk.
type Field struct {
	// Name as in linux/bpf.h; sk.X is field X of the struct bpf_sock at sk.
	Name string `json:"name"`
	// Readable says whether the verifier accepts a filter that reads it.
	Readable bool `json:"readable"`
}

// Status says how far a kind of socket came.
type Status string

const (
	// Filtered sockets ran the filter for what they received.
	Filtered Status = "filtered"
	// Unfiltered sockets took the filter and got packets, and the filter never ran.
	Unfiltered Status = "unfiltered"
	// Unprobed sockets took the filter, but the probe did not reach them.
	Unprobed Status = "unprobed"
	// Refused sockets take no filter.
	Refused Status = "refused"
	// Absent kinds cannot be opened on this kernel.
	Absent Status = "absent"
)

// Socket is what the survey found of one kind of socket. Everything after
// Reason is empty where nothing could be found.
type Socket struct {
	// Name is the kind, such as "udp"; raw kinds have their protocol with them: "raw/tcp".
	Name string `json:"name"`
	// Summary is a few words on what that is.
	Summary string `json:"summary"`
	// Status says how far it came, Reason why no further: a call and its errno.
	Status Status `json:"status"`
	Reason string `json:"reason,omitempty"`
	// Headers names what stands in a packet of the probe, from the outermost
	// header that exists on; the last one is the payload.
	Headers []string `json:"headers,omitempty"`
	// Offset0 is the one of Headers that the filter finds at offset 0.
	Offset0 string `json:"offset0,omitempty"`
	// Directions has "in" where the filter sees what the host received (as
	// skb->pkt_type says), and "out" where it sees what the host sends.
	Directions []string `json:"directions,omitempty"`
	// Exchange lists the kinds of packets on the wire, in order of appearance,
	// and which of them the filter saw.
	Exchange []Exchanged `json:"exchange,omitempty"`
	// Inherits says whether what the socket accepts has its filter: "yes", "no",
	// or empty for sockets that accept nothing.
	Inherits string `json:"inherits,omitempty"`
	// Below is what the filter reaches below offset 0.
	Below *Below `json:"below,omitempty"`
	// Userspace is what recvmsg returned, against what the filter saw.
	Userspace *Userspace `json:"userspace,omitempty"`
	// Verdicts has what becomes of the probe when the filter drops, cuts or keeps it.
	Verdicts []Outcome `json:"verdicts,omitempty"`
	// Large is a stream over an interface with a small MTU, Empty a message
	// without payload, Fragments a datagram that the IP layer has to cut.
	Large     *Large     `json:"large,omitempty"`
	Empty     *Empty     `json:"empty,omitempty"`
	Fragments *Fragments `json:"fragments,omitempty"`
	// Held is what the readable Fields held, by name: the values that were seen,
	// separated by commas, or "set" for a value that is another one each time.
	Held map[string]string `json:"held,omitempty"`
}

// Exchanged is a kind of packet in the exchange of the probe.
type Exchanged struct {
	// Packet is what it is: "SYN", "handshake ACK", "data", "datagram", "echo reply", ...
	Packet string `json:"packet"`
	// To is "socket" or "peer", or empty where packets do not say.
	To string `json:"to,omitempty"`
	// Filter is whether the filter saw "all", "some" or "none" of them.
	Filter string `json:"filter"`
}

// The ways that a header below offset 0 can be.
const (
	// ReachedBytes: the very bytes that were on the wire.
	ReachedBytes = "reached"
	// ReachedSelf: the call succeeds, and gives the bytes from offset 0 on.
	ReachedSelf = "offset 0"
	// ReachedOther: the call succeeds, and the bytes are neither.
	ReachedOther = "other bytes"
	// ReachedNone: the call fails, or the load ends the program.
	ReachedNone = "no"
)

// Below is what the filter reaches below offset 0: ReachedBytes, ReachedSelf,
// ReachedOther or ReachedNone.
type Below struct {
	// RelativeNet and RelativeLink are reached for with bpf_skb_load_bytes_relative,
	// from the network and from the link header on.
	RelativeNet  string `json:"relative_net"`
	RelativeLink string `json:"relative_link"`
	// LegacyNet and LegacyLink are reached for with absolute loads at SKF_NET_OFF
	// and SKF_LL_OFF.
	LegacyNet  string `json:"legacy_net"`
	LegacyLink string `json:"legacy_link"`
}

// Userspace is what recvmsg returned of the probe.
type Userspace struct {
	// From is the one of Headers that userspace gets first.
	From string `json:"from"`
	// Same says that userspace got the very bytes that the filter saw.
	Same bool `json:"same"`
	// Missing names the headers that the filter saw and userspace did not get.
	Missing []string `json:"missing,omitempty"`
	// MissingFront and MissingEnd are the bytes that userspace did not get, of
	// what the filter saw, before and after what it got. 0 where the filter saw nothing.
	MissingFront int `json:"missing_front"`
	MissingEnd   int `json:"missing_end"`
}

// Outcome is what a verdict does.
type Outcome struct {
	// Keep is what the filter returned: bytes to keep, -1 for all, 0 to drop.
	Keep int `json:"keep"`
	// Messages and Bytes are what userspace got; a stream is one message.
	Messages int `json:"messages"`
	Bytes    int `json:"bytes"`
	// Ended says that userspace saw the end of a connection.
	Ended bool `json:"ended,omitempty"`
	// Probe is how the sender fared: "ok", or the call that failed and its errno.
	Probe string `json:"probe"`
}

// Large is what a stream of 40000 bytes shows where packets should be small.
type Large struct {
	// MTU is that of the interface, in bytes.
	MTU int `json:"mtu"`
	// Longer says that the filter saw packets longer than the MTU.
	Longer bool `json:"longer"`
	// GSOSizes are the values of gso_size other than 0, in bytes.
	GSOSizes []int `json:"gso_sizes,omitempty"`
	// Bytes is what userspace got.
	Bytes int `json:"bytes"`
}

// Empty is what a message without payload shows.
type Empty struct {
	// Filter is the length in bytes that the filter saw, -1 if it did not run.
	Filter int `json:"filter"`
	// Messages is what userspace got.
	Messages int `json:"messages"`
	// Bytes is the length of the first of them.
	Bytes int `json:"bytes"`
	// Ended says that userspace took it for the end of a connection.
	Ended bool `json:"ended,omitempty"`
}

// Fragments is what a datagram shows that is longer than the MTU.
type Fragments struct {
	// MTU is that of the interface, Payload what was sent, in bytes.
	MTU     int `json:"mtu"`
	Payload int `json:"payload"`
	// Wire counts the packets that were received over the interface, Filter those that the
	// filter saw.
	Wire   int `json:"wire"`
	Filter int `json:"filter"`
	// Longest is the longest packet that the filter saw, User the longest message
	// that userspace got, in bytes.
	Longest int `json:"longest"`
	User    int `json:"user"`
}

// Socket finds an entry by its name.
func (r *Report) Socket(name string) (*Socket, bool) {
	for i := range r.Sockets {
		if r.Sockets[i].Name == name {
			return &r.Sockets[i], true
		}
	}
	return nil, false
}
