package survey

// Schema is the version of Report. It increases when a field changes its meaning or is
// removed, but not for a new field.
const Schema = 1

// Report is what a survey found on one kernel, and its JSON. Everything except System is
// the same in every run on the same kernel: it contains no times, ports, addresses of
// peers, or counts that depend on chance.
type Report struct {
	// Schema is the version of this structure.
	Schema int `json:"schema"`
	// System is where the survey ran. Compare ignores it.
	System System `json:"system"`
	// Fields says what the verifier lets a socket filter read, in the order of
	// struct __sk_buff.
	Fields []Field `json:"fields"`
	// Sockets has an entry for each kind of socket, in the order of Rows.
	Sockets []Socket `json:"sockets"`
	// Hooks has an entry for each place where the kernel runs a program for a packet; empty if
	// Options.Hooks was not set.
	Hooks []Hook `json:"hooks,omitempty"`
}

// System is a kernel and the program that surveyed it.
type System struct {
	// Kernel is the release, as uname -r prints it.
	Kernel string `json:"kernel"`
	// Machine is the architecture, as uname -m prints it.
	Machine string `json:"machine"`
	// Program is the name and version of the program that made the report.
	Program string `json:"program"`
}

// Field is a field of struct __sk_buff, or of the socket that its sk points to.
type Field struct {
	// Name is the name in linux/bpf.h; sk.X is field X of the struct bpf_sock at sk.
	Name string `json:"name"`
	// Readable says whether the verifier accepts a filter that reads it.
	Readable bool `json:"readable"`
}

// Status tells how far the experiments with a kind of socket got.
type Status string

const (
	// Filtered sockets ran the filter on what they received.
	Filtered Status = "filtered"
	// Unfiltered sockets accepted the filter and received packets, but the filter never
	// ran.
	Unfiltered Status = "unfiltered"
	// Unprobed sockets accepted the filter, but the probe did not reach them.
	Unprobed Status = "unprobed"
	// Refused sockets do not accept a filter.
	Refused Status = "refused"
	// Absent kinds cannot be opened on this kernel.
	Absent Status = "absent"
)

// Socket is what the survey found about one kind of socket. Everything after Reason is
// empty where nothing could be found out.
type Socket struct {
	// Name is the kind, such as "udp"; raw kinds include the protocol: "raw/tcp".
	Name string `json:"name"`
	// Summary describes it in a few words.
	Summary string `json:"summary"`
	// Status tells how far the experiments got, Reason why no further: a call and its
	// errno.
	Status Status `json:"status"`
	Reason string `json:"reason,omitempty"`
	// Headers names the layers of a packet of the probe, from the outermost header to the
	// payload.
	Headers []string `json:"headers,omitempty"`
	// Offset0 is the one of Headers at offset 0 of the filter.
	Offset0 string `json:"offset0,omitempty"`
	// Directions contains "in" if the filter sees what the host receives (by
	// skb->pkt_type), and "out" if it sees what the host sends.
	Directions []string `json:"directions,omitempty"`
	// Exchange lists the kinds of packets on the wire in order of appearance, and which
	// of them the filter saw.
	Exchange []Exchanged `json:"exchange,omitempty"`
	// Inherits says whether accepted sockets have the listener's filter: "yes" or "no";
	// empty for sockets that accept none.
	Inherits string `json:"inherits,omitempty"`
	// Below is what the filter reaches below offset 0.
	Below *Below `json:"below,omitempty"`
	// Userspace is what recvmsg returned, compared with what the filter saw.
	Userspace *Userspace `json:"userspace,omitempty"`
	// Verdicts tells what happens to the probe when the filter drops, trims or keeps it.
	Verdicts []Outcome `json:"verdicts,omitempty"`
	// Large is a stream over an interface with a small MTU, Empty a message without
	// payload, Fragments a datagram that the IP layer has to fragment.
	Large     *Large     `json:"large,omitempty"`
	Empty     *Empty     `json:"empty,omitempty"`
	Fragments *Fragments `json:"fragments,omitempty"`
	// VLAN are frames with a VLAN tag, without one or with one for which there is no device. It is empty
	// for sockets that get no UDP over IPv4.
	VLAN []Tagged `json:"vlan,omitempty"`
	// Merged are datagrams that were sent together. It is nil for other sockets than UDP's.
	Merged *Merged `json:"merged,omitempty"`
	// Held has the values of the readable Fields by name, separated by commas, with "set"
	// for a value that differs each time.
	Held map[string]string `json:"held,omitempty"`
}

// Exchanged is a kind of packet in the exchange of the probe.
type Exchanged struct {
	// Packet names it: "SYN", "handshake ACK", "data", "datagram", "echo reply", ...
	Packet string `json:"packet"`
	// To is "socket" or "peer", or empty if that cannot be told from the packet.
	To string `json:"to,omitempty"`
	// Filter says whether the filter saw "all", "some" or "none" of them.
	Filter string `json:"filter"`
}

// Outcomes of reaching for a header below offset 0.
const (
	// ReachedBytes: the bytes that were on the wire.
	ReachedBytes = "reached"
	// ReachedSelf: the call succeeds, but returns the bytes from offset 0 on.
	ReachedSelf = "offset 0"
	// ReachedOther: the call succeeds, but returns neither.
	ReachedOther = "other bytes"
	// ReachedNone: the call fails, or the load terminates the program.
	ReachedNone = "no"
)

// Below is what the filter reaches below offset 0: ReachedBytes, ReachedSelf,
// ReachedOther or ReachedNone.
type Below struct {
	// RelativeNet and RelativeLink are the outcomes of bpf_skb_load_bytes_relative from
	// the network and the link header.
	RelativeNet  string `json:"relative_net"`
	RelativeLink string `json:"relative_link"`
	// LegacyNet and LegacyLink are the outcomes of absolute loads at SKF_NET_OFF and
	// SKF_LL_OFF.
	LegacyNet  string `json:"legacy_net"`
	LegacyLink string `json:"legacy_link"`
}

// Userspace tells which part of the probe recvmsg returned.
type Userspace struct {
	// From is the one of Headers that the returned bytes begin with.
	From string `json:"from"`
	// Same says that userspace got exactly the bytes that the filter saw.
	Same bool `json:"same"`
	// Missing names the headers that the filter saw and userspace did not get.
	Missing []string `json:"missing,omitempty"`
	// MissingFront and MissingEnd count the bytes that the filter saw before and after
	// those that userspace got; 0 if the filter saw nothing.
	MissingFront int `json:"missing_front"`
	MissingEnd   int `json:"missing_end"`
}

// Outcome is the effect of a verdict.
type Outcome struct {
	// Keep is what the filter returned: bytes to keep, -1 for all, 0 to drop.
	Keep int `json:"keep"`
	// Messages and Bytes count what userspace got; a stream is one message.
	Messages int `json:"messages"`
	Bytes    int `json:"bytes"`
	// Ended says that userspace saw the end of a connection.
	Ended bool `json:"ended,omitempty"`
	// Probe is the result for the sender: "ok", or the call that failed and its errno.
	Probe string `json:"probe"`
}

// Large is the result of a stream of 40000 bytes over an interface with a small MTU.
type Large struct {
	// MTU is the interface's MTU in bytes.
	MTU int `json:"mtu"`
	// Longer says that the filter saw packets longer than the MTU.
	Longer bool `json:"longer"`
	// GSOSizes are the values of gso_size except 0, in bytes.
	GSOSizes []int `json:"gso_sizes,omitempty"`
	// Bytes counts what userspace got.
	Bytes int `json:"bytes"`
}

// Empty is the result of a message without payload.
type Empty struct {
	// Filter is the length in bytes that the filter saw, -1 if it did not run.
	Filter int `json:"filter"`
	// Messages counts what userspace got.
	Messages int `json:"messages"`
	// Bytes is the length of the first of them.
	Bytes int `json:"bytes"`
	// Ended says that userspace saw it as the end of a connection.
	Ended bool `json:"ended,omitempty"`
}

// Fragments is the result of a datagram that is longer than the MTU.
type Fragments struct {
	// MTU is the interface's MTU, Payload the size of what was sent, in bytes.
	MTU     int `json:"mtu"`
	Payload int `json:"payload"`
	// Wire counts the packets received over the interface, Filter those that the filter
	// saw.
	Wire   int `json:"wire"`
	Filter int `json:"filter"`
	// Longest is the longest packet that the filter saw, User the longest message
	// that userspace got, in bytes.
	Longest int `json:"longest"`
	User    int `json:"user"`
}

// Tagged is the result of a frame with a VLAN tag.
type Tagged struct {
	// Name is "id 0" for a priority tag, "id 5" for a VLAN without a device.
	Name string `json:"name"`
	// Filter counts the packets that the filter saw, and Beside those of them that had the tag beside
	// their bytes (vlan_present).
	Filter int `json:"filter"`
	Beside int `json:"beside"`
	// Tag is that tag: the ethertype, and priority and id.
	Tag string `json:"tag,omitempty"`
	// User counts what userspace got.
	User int `json:"user"`
}

// Merged is the result of datagrams that were sent with one call (UDP_SEGMENT).
type Merged struct {
	// Sent counts them, Size is that of each in bytes.
	Sent int `json:"sent"`
	Size int `json:"size"`
	// Single is what came to a socket without UDP_GRO, Together to one with it.
	Single   Arrived `json:"single"`
	Together Arrived `json:"together"`
	// GSOSize is gso_size of a packet that has several; 0 if there was none.
	GSOSize int `json:"gso_size"`
}

// Arrived counts what the filter saw and what userspace got.
type Arrived struct {
	Filter int `json:"filter"`
	User   int `json:"user"`
}

// Socket finds an entry by name.
func (r *Report) Socket(name string) (*Socket, bool) {
	for i := range r.Sockets {
		if r.Sockets[i].Name == name {
			return &r.Sockets[i], true
		}
	}
	return nil, false
}

// hook finds what was found at a hook by its name.
func (r *Report) hook(name string) (*Hook, bool) {
	for i := range r.Hooks {
		if r.Hooks[i].Name == name {
			return &r.Hooks[i], true
		}
	}
	return nil, false
}
