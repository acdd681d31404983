package capture

import (
	"net/netip"
	"strconv"
	"time"
)

// View is one observer of a packet, whose bytes are what that observer gets.
type View uint8

const (
	// ViewKernel is the packet from offset 0 of the __sk_buff that the socket filter got.
	ViewKernel View = iota + 1
	// ViewUser is what a receiving system call returned.
	ViewUser
	// ViewNet is what the filter reaches from the network header on.
	ViewNet
	// ViewLink is what the filter reaches from the link header on.
	ViewLink
	// ViewWire is what packet sockets get on the interfaces of the machine that a packet passes, with
	// the link header, of what a socket receives and of what it sends.
	ViewWire
	// ViewSent is what a sending system call took.
	ViewSent
	// ViewCgroup is what the cgroup hooks get, from the IP header on: of what a socket receives
	// and of what it sends.
	ViewCgroup
	// ViewDrop is what the kernel freed of what a socket was to receive or has sent, from the IP
	// header on, with the reason.
	ViewDrop

	// ViewSelect is what the program gets that chooses a socket of a reuseport group: of one that
	// chooses by itself what it can read directly, from the transport header on; of a socket filter
	// the payload.
	ViewSelect

	// ViewCount is more than the number of any view, to index arrays.
	ViewCount
)

var viewNames = map[View]string{
	ViewKernel: "kernel",
	ViewUser:   "user",
	ViewNet:    "net",
	ViewLink:   "link",
	ViewWire:   "wire",
	ViewSent:   "sent",
	ViewCgroup: "cgroup",
	ViewDrop:   "drop",
	ViewSelect: "select",
}

// String is the name used on the command line and in interface names.
func (v View) String() string { return viewNames[v] }

// ViewByName finds the view that a user named.
func ViewByName(name string) (View, bool) {
	for v, n := range viewNames {
		if n == name {
			return v, true
		}
	}
	return 0, false
}

// Layer is the layer that a packet's bytes begin with.
type Layer uint8

const (
	// LayerLink: an Ethernet header. A VLAN tag in the packet's Meta is not in it.
	LayerLink Layer = iota + 1
	// LayerNetwork: an IPv4 or IPv6 header.
	LayerNetwork
	// LayerTransport: the header of the packet's Protocol, without an IP header before it.
	LayerTransport
	// LayerMessage: a payload without any header.
	LayerMessage
	// LayerForeign: whatever the interface's LinkType says. Only files have such packets.
	LayerForeign
)

// Interface is where packets were seen: one view of one socket kind. Each becomes an interface
// block of its own in a pcapng file.
type Interface struct {
	// Kind is the name of the socket kind, such as "tcp".
	Kind string
	// View is whose bytes the packets hold.
	View View
	// Layer is what every packet of the interface begins with.
	Layer Layer
	// IPv6 says that the network layer is IPv6 and not IPv4.
	IPv6 bool
	// Description describes the packets in plain words: that of the file, or of the code that
	// made the interface. It is empty for a capture's own interface, for which a file gets a
	// description made from the other fields.
	Description string
	// Source is where the packets come from; SourceUnknown for all that were read from a pcapng
	// file which does not say that they come from a text.
	Source Source
	// Header says whether the IP header that a packet has in a file is its own.
	Header Header
	// Times says what the packets' times are.
	Times Times
	// ClockError bounds by how many nanoseconds the times of a capture's kernel view differed
	// from the wall clock when it began.
	ClockError int64
	// Process is the process of another program whose sockets these are, such as "process 12
	// (nginx)", and Sockets which of its sockets, such as "descriptor 7, listening on [::]:80".
	// Both are empty for a socket of our own; Sockets is also empty for an interface that was
	// read from a file.
	Process, Sockets string
	// Device is the interface of the machine (ViewWire only), such as "eth0".
	Device string
	// Filter is the filter that the sockets have of their own at the first packet, and how its
	// verdicts are known (kernel view of joined processes only); empty if there is none.
	Filter string
	// Expression is the capture filter; empty if there was none, or if the interface was read from a
	// file.
	Expression string
	// Member is the number of the socket in its reuseport group, from 0 on, and Members how many
	// sockets the group has; 0 if the socket is in none. ViewSelect is one interface for all.
	Member, Members int
	// LinkType is what packets of LayerForeign begin with, a number of
	// https://www.tcpdump.org/linktypes.html. Those of LayerMessage have LinkNetlink if they are
	// netlink messages that are so in a file.
	LinkType uint16
	// DecodeAs is the name that a protocol has in Wireshark, which is to take the messages for it
	// (LayerMessage only); empty to leave that to Wireshark.
	DecodeAs string
	// HasMeta says that the Meta of every packet is known: a zero in it was zero in the kernel.
	HasMeta bool
	// Label is the name of an interface that is not a view of a socket, which has no Kind and
	// no View. It may be empty.
	Label string
}

// LinkNetlink is LINKTYPE_NETLINK.
const LinkNetlink = 253

// Source is where the packets of an interface come from.
type Source uint8

const (
	// SourceUnknown is for packets whose source only the Description may tell.
	SourceUnknown Source = iota
	// SourceTap is for packets of a running capture.
	SourceTap
	// SourceTrace is for packets that a filter printed to the kernel's trace.
	SourceTrace
	// SourceServer is for bytes that a server printed as received.
	SourceServer
	// SourceDump is for packets that another program printed in hexadecimal.
	SourceDump
)

// Header tells whether a packet's IP header is its own.
type Header uint8

const (
	// HeaderRecorded is for packets that are in a file as they were recorded.
	HeaderRecorded Header = iota
	// HeaderSynthetic is for packets without an IP header, which get one with their addresses
	// in a file.
	HeaderSynthetic
	// HeaderInvented is the same for packets whose addresses are not known, so that these are
	// invented, too.
	HeaderInvented
	// HeaderSegment is for payloads (LayerMessage) that were passed to or from a TCP or UDP
	// socket, or a unix stream. In a file they get an IP header and one of TCP or UDP, made of their addresses and
	// their Segment, so that readers put the bytes of both directions together.
	HeaderSegment
	// HeaderElsewhere is the same where another view (ViewCgroup, ViewWire) has the bytes behind their own
	// headers already, which would look like a repetition: then only a file without room for that
	// view gets such headers.
	HeaderElsewhere
)

// Times says what the times of packets are.
type Times uint8

const (
	// TimesRecorded: the packets' own.
	TimesRecorded Times = iota
	// TimesLent: those of the packets that brought what a server printed.
	TimesLent
	// TimesNone: the packets only have an order.
	TimesNone
)

// Name is the interface's name in files and on terminals: KIND:VIEW, or KIND[MEMBER]:VIEW for a
// socket of a reuseport group, or its Label if it is not a view of a socket.
func (i *Interface) Name() string {
	if i.View == 0 && i.Kind == "" {
		return i.Label
	}
	return i.sockets() + ":" + i.View.String()
}

// sockets names the interface's socket.
func (i *Interface) sockets() string {
	if i.Members == 0 || i.View == ViewSelect {
		return i.Kind
	}
	return i.Kind + "[" + strconv.Itoa(i.Member) + "]"
}

// HasSegments tells whether the interface has payloads that can get the headers of a segment.
func (i *Interface) HasSegments() bool {
	return i.Header == HeaderSegment || i.Header == HeaderElsewhere
}

// Direction tells received packets from sent ones.
type Direction uint8

const (
	// DirectionUnknown is for a packet without a direction, such as a message between local
	// sockets.
	DirectionUnknown Direction = iota
	// Inbound packets were received.
	Inbound
	// Outbound packets were sent.
	Outbound
)

// Packet is one observer's bytes of one packet. A Sink may use the *Packet of a call, and the
// memory of its Data, only until the call returns.
type Packet struct {
	Interface *Interface
	// Time is in nanoseconds since the Unix epoch.
	Time int64
	// ID joins the views: every view of the same packet has the same ID. Zero means that the
	// packet is not joined to any other.
	ID uint64
	// Direction as seen from the socket's host.
	Direction Direction
	// Data is what was captured, from the interface's Layer on.
	Data []byte
	// Len is the packet's original length in bytes; it exceeds len(Data) if the packet was
	// truncated or trimmed.
	Len int
	// Truncated says that the tap truncated the packet, because of Config.Snaplen (kernel view
	// only).
	Truncated bool
	// Drops counts the packets that this observer lost since the previous one.
	Drops uint64
	// Comment is a comment of the user's, or empty. What this project knows of the packet is in
	// the other fields, also if it was read from the comments of a file: then it is replaced in
	// Comment by an empty line or sentence, if there is other text before or after it.
	Comment string
	// Src and Dst are the packet's addresses; invalid where the layer below has none. Ports are
	// zero for protocols without ports.
	Src, Dst netip.AddrPort
	// Protocol is the IP protocol number, such as 6 for TCP; zero when there is none.
	Protocol uint8
	// Netlink is the protocol of the netlink socket, such as unix.NETLINK_GENERIC, on interfaces with
	// LinkNetlink.
	Netlink uint16
	// Segment is where the bytes are in a stream, on interfaces where HasSegments is true.
	Segment Segment
	// Call is the system call that returned the bytes or took them (user and sent views only),
	// such as "recvfrom".
	Call string
	// Meta is what the kernel kept in addition to the bytes (views of the kernel's side only).
	Meta Meta
	// Verdict is what the socket's filter decided (kernel view only).
	Verdict Verdict
	// Filter is set if the packets from this one on are of sockets with another filter of their own
	// than those before it, or than the Interface's Filter says (kernel view only).
	Filter FilterChange
	// Drop is why the kernel has freed the packet (drop view only).
	Drop Drop
	// Selection is how the socket was chosen (select view only).
	Selection Selection
	// Receipt is how userspace got the bytes, and Reception what the Call was given and said
	// (user view only). In the sent view Receipt has the Errno with which a call has failed, and in
	// which packets the bytes of the others are.
	Receipt   Receipt
	Reception Reception
	// PID and TID are the process and thread that made the Call, zero when unknown.
	PID, TID uint32
}

// FilterChange says which filter sockets have from a packet on.
type FilterChange struct {
	// Changed is false for a packet whose filter is that of the one before it.
	Changed bool
	// Now is the filter, as in the Interface's Filter; empty if there is none.
	Now string
}

// Got is how many bytes of a packet of the user view userspace got. With MSG_TRUNC, calls return
// the length of the whole message instead, which then is Len.
func (p *Packet) Got() int {
	n := max(p.Len, len(p.Data))
	if p.Reception.Cut {
		n = min(n, int(p.Reception.Buffer))
	}
	return n
}

// Segment is what the header says that bytes get in a file which went through a TCP or UDP
// socket, or a unix stream.
type Segment struct {
	// Known is false for what moved no bytes, or none to stay: it gets no such header.
	Known bool
	// Connection is the number that a unix stream's socket has in the capture, from 1 on: such
	// sockets have no addresses. It is 0 for others.
	Connection uint64
	// Seq is TCP's sequence number of the first byte. Of a unix stream bytes are counted, from 1 on.
	Seq uint32
	// Ack is that of the next byte in the other direction, if Acks says that it is known.
	Ack  uint32
	Acks bool
	// Ends says that no byte follows.
	Ends bool
	// Elsewhere says that a view of the connection's other end has the bytes behind headers
	// already. So they get none in a file that has room for both views.
	Elsewhere bool
}

// Sink takes the packets of a capture, in the order of their times.
type Sink interface {
	WritePacket(*Packet) error
}

// Flusher is a Sink that buffers packets. It is flushed at least once a second, and after every
// few packets of a capture that is Immediate.
type Flusher interface {
	Sink
	Flush() error
}

// Waker is a Flusher that is flushed at a time of its own as well, although nothing comes.
type Waker interface {
	Flusher
	// Wakes is that time; zero if there is none.
	Wakes() time.Time
}

// Statistics is the ledger of one interface: Received = Delivered + Unwanted + Dropped.
//
// The kernel and the user view of sockets that are read as messages balance: the Account says
// how. Without its terms that are usually zero:
//
//	Accepted of kernel + OSDropped of kernel = Delivered of user + OSDropped of user
type Statistics struct {
	Interface *Interface
	// Start and End bound the capture, in nanoseconds since the Unix epoch.
	Start, End int64
	// Received counts the packets that the observer saw.
	Received uint64
	// Dropped counts those of Received that are not in the file.
	Dropped uint64
	// Unwanted counts those of Received that the Expression leaves out.
	Unwanted uint64
	// Accepted counts those of Received that the socket's filter let pass, and that are not Unwanted.
	Accepted uint64
	// OSDropped counts the packets that the kernel dropped before this observer could see them:
	// in the user view those for which the receive queue had no room, but not those that the
	// filter dropped.
	OSDropped uint64
	// Delivered counts the packets that were captured for the Sink. In the user view it
	// excludes what was only peeked at, and calls that returned no message.
	Delivered uint64
	// Written counts all packets that the Sink took. It is not in a file.
	Written uint64
	// Bytes counts what userspace got or sent, in its views: for streams it is the only sum. It
	// is not in a file.
	Bytes uint64
	// Reasons says why the kernel dropped the packets (drop view only), nil if it dropped none. In a
	// file it is in the Comment.
	Reasons *DropReasons
	// Comment is a remark in words, or empty: in the user view the Account, in the drop view the
	// Reasons.
	Comment string
	// Account balances the packets of the interface's sockets, in the user view. It is nil for
	// streams and for interfaces that were read from a file.
	Account *Account
}
