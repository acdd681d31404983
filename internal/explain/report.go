// Package explain analyses a capture: what each observer of a socket saw of every packet,
// and what happened to it on the way to userspace.
//
// A capture is read once, sequentially, in memory that does not grow with it; only the
// packets to be shown individually are kept.
package explain

import "time"

// Version is the version of the Report's structure. New fields may be added without a new
// version; existing ones keep their names and meaning.
const Version = 1

// Report holds the findings about a capture, as --json prints them.
type Report struct {
	// Version is the version of this structure.
	Version int `json:"version"`
	// File is the capture's name.
	File string `json:"file"`
	// Application is the name and version of the program that wrote it.
	Application string `json:"application,omitempty"`
	// Command is the command line that made it.
	Command string `json:"command,omitempty"`
	// OS is the operating system that it was made on, and Hardware its architecture.
	OS       string `json:"os,omitempty"`
	Hardware string `json:"hardware,omitempty"`
	// Packets counts the packet blocks of the file, one for each view of a packet.
	Packets uint64 `json:"packets"`
	// Start is the earliest time in the file. It is absent without packets, and if times
	// do not count from the epoch.
	Start *time.Time `json:"start,omitempty"`
	// Duration is the time from the earliest to the latest packet in nanoseconds; 0
	// without real times.
	Duration int64 `json:"duration_ns"`
	// Damage says why the file could not be read to its end. The rest of the report
	// covers what precedes the damage.
	Damage string `json:"damage,omitempty"`
	// CutOff says that the file ends in the middle of a block, as after a crash of its
	// writer. It is absent if the file is complete.
	CutOff *CutOff `json:"cut_off,omitempty"`
	// Sockets has one entry for each kind of socket, in the file's order.
	Sockets []*Socket `json:"sockets"`
	// Foreign lists the interfaces that are not views of a socket. Their packets are not
	// analysed.
	Foreign []Foreign `json:"foreign,omitempty"`
}

// CutOff locates an incomplete block.
type CutOff struct {
	// Offset is its byte offset in the file, and Rest how many bytes of it there are: none if a compressed
	// stream breaks off between blocks.
	Offset int64 `json:"offset"`
	Rest   int64 `json:"rest"`
}

// Foreign is an interface that is not a view of a socket.
type Foreign struct {
	Name    string `json:"name"`
	Packets uint64 `json:"packets"`
}

// Socket holds the findings about one kind of socket.
type Socket struct {
	// Kind is the kind's name, such as "tcp", and Summary describes it in a few words.
	Kind    string `json:"kind"`
	Summary string `json:"summary,omitempty"`
	// Begins is the layer that the kernel view begins with, even if it has no packets:
	// "link", "network", "transport" or "message"; empty if the file has no kernel view.
	Begins string `json:"kernel_begins,omitempty"`
	// Protocols are the protocols in the kernel view, at most eight.
	Protocols []string `json:"protocols,omitempty"`
	// Synthetic says that the kernel view has packets, each with an IP header in the file
	// that the filter did not see at offset 0.
	Synthetic bool `json:"synthetic_header"`
	// Timed says that the times of both views are real.
	Timed bool `json:"real_times"`
	// Views lists the views in the file, in the file's order.
	Views []*View `json:"views"`
	// Packets counts each packet once, however many views it has.
	Packets uint64 `json:"packets"`
	// Delivered are the packets from which userspace got bytes, an empty message, or the
	// end of the stream. Bytes counts what it got.
	Delivered Count `json:"delivered"`
	// Unseen is what userspace never gets even if everything works.
	Unseen Unseen `json:"unseen"`
	// Undelivered is what userspace could have got and, according to the file, did not.
	// Bytes counts that: payload, and where sockets hand out headers as well, with those. Without a user view the file shows only what the filter
	// and the kernel dropped.
	Undelivered Undelivered `json:"undelivered"`
	// Comparison tells whether both views hold the same bytes.
	Comparison Comparison `json:"comparison"`
	// Mapping tells how reads and packets correspond.
	Mapping Mapping `json:"mapping"`
	// Calls is what the reads said besides the bytes. It is absent if that is nothing.
	Calls *Calls `json:"calls,omitempty"`
	// Latency is absent if no read belongs to a packet, and without real times.
	Latency *Latency `json:"latency,omitempty"`
	// OwnFilters is what is known of filters that the sockets have of their own. It is absent if
	// the file tells of none.
	OwnFilters *OwnFilters `json:"own_filters,omitempty"`
	// Losses are the packets that are not in the file.
	Losses Losses `json:"losses"`
	// Undivided names the views of which the capture has lost something that may be of any kind of socket, whichever
	// of them has the number. It is absent if there is nothing of the kind.
	Undivided []string `json:"undivided,omitempty"`
	// Sent is what was sent. It is absent if the file has no sent view.
	Sent *Sent `json:"sent,omitempty"`
	// Drops is what the kernel dropped. It is absent if the file has no drop view.
	Drops *Drops `json:"drops,omitempty"`
	// Cgroup is what the cgroup hooks saw. It is absent if the file has no cgroup view.
	Cgroup *Cgroup `json:"cgroup,omitempty"`
	// Wire is what was on the interfaces. It is absent if the file has no wire view.
	Wire *Wire `json:"wire,omitempty"`
	// Selections is how the sockets of a reuseport group were chosen. It is absent if the file has no
	// select view.
	Selections *Selections `json:"selections,omitempty"`
	// Connections are the connections in the order of their first packets, at most 1024, and Further is
	// what passed in all others. It is absent if there are none.
	Connections []*Connection `json:"connections"`
	Further     *Connection   `json:"further_connections,omitempty"`
	// Ambiguous are the packets that repeat the id of an earlier one of this kind, so
	// that it is unknown which of them a read got.
	Ambiguous Count `json:"ambiguous_ids"`
	// Metadata is absent if no packet has any, or the file does not tell.
	Metadata *Metadata `json:"beside,omitempty"`
	// Findings say all this in sentences for people. The wording may change.
	Findings []Finding `json:"findings"`
}

// View is one view of a socket.
type View struct {
	// Name is "kernel", "user", "net", "link", "wire", "sent", "cgroup", "drop" or "select".
	Name string `json:"name"`
	// Description is that of the first interface of this view.
	Description string `json:"description,omitempty"`
	// Packets counts the packets, Bytes their original length without synthetic headers,
	// and Cut those that are truncated in the file.
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
	Cut     uint64 `json:"cut"`
	// Received, Sent and Undirected count the packets by direction.
	Received   uint64 `json:"received"`
	Sent       uint64 `json:"sent"`
	Undirected uint64 `json:"undirected"`
	// Drops is the sum of the drop counts of the packets.
	Drops uint64 `json:"drops"`
	// Before is how many bytes the view has before offset 0 of the kernel view; negative
	// if it begins after that. It is absent without a kernel view.
	Before *Range `json:"bytes_before_offset_0,omitempty"`
	// Disagree counts the packets whose bytes differ from the kernel view.
	Disagree uint64 `json:"disagree"`
	// Foreign counts the packets that this tool would have written differently.
	Foreign uint64 `json:"foreign"`
	// Statistics is absent if the file has none for this view, because the capture was
	// killed or another program rewrote the file.
	Statistics *Statistics `json:"statistics,omitempty"`
}

// Statistics is the interface statistics block that a capture writes at its end.
type Statistics struct {
	// Received = Delivered + NotWanted + Dropped, in packets.
	Received  uint64 `json:"received"`
	Delivered uint64 `json:"delivered"`
	Dropped   uint64 `json:"dropped"`
	// NotWanted counts those that the capture filter left out.
	NotWanted uint64 `json:"not_wanted"`
	// Accepted counts those of Received that the socket's filter let pass.
	Accepted uint64 `json:"accepted"`
	// OSDropped counts the packets that were dropped before they reached this observer.
	OSDropped uint64 `json:"os_dropped"`
	// Comment is the block's comment: how the packets of a socket add up.
	Comment string `json:"comment,omitempty"`
}

// Range is an inclusive range.
type Range struct {
	Least int64 `json:"least"`
	Most  int64 `json:"most"`
}

// Count counts packets and names them.
type Count struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
	// IDs are the packet ids.
	IDs IDs `json:"ids"`
}

// Unseen is what the kernel keeps to itself.
type Unseen struct {
	// Handshake counts SYN segments, and the ACK that answers a SYN-ACK.
	Handshake Count `json:"handshake"`
	// ACK counts the other segments without payload.
	ACK Count `json:"ack"`
	// FIN and RST count segments that end a stream. Userspace gets no bytes from them,
	// but may be told of the end; those are in Delivered as well.
	FIN Count `json:"fin"`
	RST Count `json:"rst"`
	// Repeated counts segments whose payload other segments had brought already.
	Repeated Count `json:"repeated"`
	// Headers counts the bytes before the payload, in packets from which userspace got
	// bytes or an empty message.
	Headers Count `json:"headers"`
	// HeaderSize is the size of those headers per packet. It is absent if there is no
	// such packet.
	HeaderSize *Range `json:"header_size,omitempty"`
}

// Undelivered is what did not reach userspace, by reason.
type Undelivered struct {
	// ByFilter was dropped by the socket's filter (verdict 0).
	ByFilter Count `json:"by_filter"`
	// ByQueue was dropped because the socket's receive queue was full.
	ByQueue Count `json:"by_queue"`
	// ByKernel was dropped by the kernel for another reason, which Drops has.
	ByKernel Count `json:"by_kernel"`
	// PassedOver belongs to no read although later packets do, for a reason that is not
	// in the file.
	PassedOver Count `json:"passed_over"`
	// AtEnd belongs to no read before the end of the file.
	AtEnd Count `json:"at_end"`
	// NotKnown is joined to no read either, but a read of it may be in the file: the ids say several
	// packets (Ambiguous), or it left what can be remembered, and some of that was read afterwards (Losses.Late).
	// It is in neither AtEnd nor, with such ids, PassedOver.
	NotKnown Count `json:"not_known"`
	// Trimmed was trimmed by a filter whose verdict was smaller than the packet. Bytes
	// counts what userspace did not get.
	Trimmed Count `json:"truncated_by_filter"`
	// ByBuffer was cut since the buffer of the call had no room for all of it. Bytes counts
	// what userspace did not get.
	ByBuffer Count `json:"cut_by_buffer"`
	// InPart reached userspace partly for another reason.
	InPart Count `json:"in_part"`
}

// Comparison compares what userspace got with the kernel view.
type Comparison struct {
	// Reads counts the calls that returned bytes, or a message without any, and Bytes those bytes.
	Reads uint64 `json:"reads"`
	Bytes uint64 `json:"bytes"`
	// Same counts the reads whose bytes were all compared and are equal.
	Same uint64 `json:"same"`
	// Partial counts the reads of which some bytes were compared and are equal; the rest
	// is not in the file.
	Partial uint64 `json:"partial"`
	// Differ counts the reads that differ. IDs are those of their first packets.
	Differ Count `json:"differ"`
	// Unknown counts the reads of which nothing could be compared: their packets or their
	// bytes are not in the file, the packets are too far back to be remembered, or several
	// packets have their id.
	Unknown uint64 `json:"unknown"`
	// Compared is how many bytes were compared.
	Compared uint64 `json:"compared"`
}

// Mapping tells from how many packets reads got their bytes, and to how many reads
// packets went.
type Mapping struct {
	// Reads counts the calls that returned bytes, an empty message, the end of a stream,
	// or an error.
	Reads uint64 `json:"reads"`
	// OneToOne counts reads of the whole payload of one packet, also if that is none.
	OneToOne uint64 `json:"one_to_one"`
	// SeveralPackets counts reads of bytes from several packets, at most Most of them.
	SeveralPackets uint64 `json:"several_packets"`
	Most           uint64 `json:"most_packets"`
	// PartOfPacket counts reads of a part of one packet's payload.
	PartOfPacket uint64 `json:"part_of_packet"`
	// SplitPackets counts packets whose payload went to several reads, at most
	// MostReads of them.
	SplitPackets uint64 `json:"split_packets"`
	MostReads    uint64 `json:"most_reads"`
	// Ends counts reads that returned the end of a stream.
	Ends uint64 `json:"ends"`
	// Errors counts reads that returned an error, such as a reset by the peer.
	Errors uint64 `json:"errors,omitempty"`
	// Before counts the reads whose bytes all arrived before the tap was attached.
	Before uint64 `json:"before_tap,omitempty"`
	// Peeks counts the calls that left the bytes in the queue (MSG_PEEK). They do not
	// count as reads.
	Peeks uint64 `json:"peeks,omitempty"`
}

// Latency is the time in nanoseconds from when the filter saw the last packet of a read
// to the return of the read.
//
// Minimum and maximum are exact. The others come from a histogram of fixed size, with an
// error of at most 1/128.
type Latency struct {
	Reads  uint64 `json:"reads"`
	Least  int64  `json:"least_ns"`
	Median int64  `json:"median_ns"`
	P99    int64  `json:"p99_ns"`
	Most   int64  `json:"most_ns"`
	// Negative counts the reads that are left out because they returned before their
	// packet.
	Negative uint64 `json:"negative"`
}

// Losses are the packets that were lost.
type Losses struct {
	// Tap counts packets that the filter saw, but that are not in the file.
	Tap uint64 `json:"tap"`
	// Queue counts packets that the receive queue dropped.
	Queue uint64 `json:"queue"`
	// Calls counts pieces of what calls returned that the capture lost.
	Calls uint64 `json:"calls"`
	// QueueOrCalls counts those of either of which a file without statistics does not tell which they are.
	QueueOrCalls uint64 `json:"queue_or_calls"`
	// Late counts reads whose packets were too far back to be remembered. Those packets
	// are among the undelivered ones of which that is NotKnown.
	Late uint64 `json:"late"`
}

// Finding is a statement about a topic.
type Finding struct {
	// Topic is "begins", "type", "reach", "beside", "filter", "direction", "ids", "bytes", "unseen", "lost",
	// "mapping", "calls", "latency", "sent", "cgroup", "wire", "drop", "select" or "tap".
	Topic string `json:"topic"`
	// Warning says that something is wrong.
	Warning bool `json:"warning"`
	// Text is one or more sentences.
	Text string `json:"text"`
}
