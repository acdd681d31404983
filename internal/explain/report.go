// Package explain reads a capture aloud: what each observer of a socket saw of
// every packet, and what became of it on the way to userspace.
//
// A capture is read once, from the beginning to the end, in memory that does
// not grow with it; only the packets that are to be shown one by one are kept.
package explain

import "time"

// Version is that of the Report's form. New fields may come without a new
// version; those that there are keep their names and their meaning.
const Version = 1

// Report is what is found in a capture, as --json prints it.
type Report struct {
	// Version is the number of this form.
	Version int `json:"version"`
	// File is the capture's name.
	File string `json:"file"`
	// Application is the name and the version of the program that wrote it.
	Application string `json:"application,omitempty"`
	// Command is the command line that made it.
	Command string `json:"command,omitempty"`
	// OS is the operating system that it was made on, and Hardware its architecture.
	OS       string `json:"os,omitempty"`
	Hardware string `json:"hardware,omitempty"`
	// Packets counts the packet blocks of the file, one for each view of a packet.
	Packets uint64 `json:"packets"`
	// Start is the earliest time in the file. It is absent if there is no packet,
	// or if times do not count from the epoch.
	Start *time.Time `json:"start,omitempty"`
	// Duration is from the earliest to the latest time, in nanoseconds; 0 if
	// there are no real times.
	Duration int64 `json:"duration_ns"`
	// Damage says why the file could not be read to its end. The rest of the
	// report is about what was whole before that.
	Damage string `json:"damage,omitempty"`
	// CutOff says that the file ends in the middle of a block, as after a crash of
	// the program that wrote it. It is absent if the file is whole.
	CutOff *CutOff `json:"cut_off,omitempty"`
	// Sockets has one entry for each kind of socket, in the file's order.
	Sockets []*Socket `json:"sockets"`
	// Foreign lists the interfaces that are no view of a socket. Nothing else is
	// said about their packets.
	Foreign []Foreign `json:"foreign,omitempty"`
}

// CutOff is the place of a block that is not whole.
type CutOff struct {
	// Offset is where it begins in the file, in bytes, and Rest how many bytes of it
	// there are.
	Offset int64 `json:"offset"`
	Rest   int64 `json:"rest"`
}

// Foreign is an interface that is no view of a socket.
type Foreign struct {
	Name    string `json:"name"`
	Packets uint64 `json:"packets"`
}

// Socket is what is found about one kind of socket.
type Socket struct {
	// Kind is the kind's name, such as "tcp", and Summary a few words about it.
	Kind    string `json:"kind"`
	Summary string `json:"summary,omitempty"`
	// Begins is what the kernel view begins with, also if it has no packets:
	// "link", "network", "transport", "message", or empty if the file has no kernel
	// view.
	Begins string `json:"kernel_begins,omitempty"`
	// Protocols are the protocols of the kernel view's packets, at most eight.
	Protocols []string `json:"protocols,omitempty"`
	// Synthetic says that the kernel view has packets, and that the file has an IP
	// header before each of them that the filter did not see at offset 0.
	Synthetic bool `json:"synthetic_header"`
	// Timed says that the times of both views are real.
	Timed bool `json:"real_times"`
	// Views lists the views in the file, in the file's order.
	Views []*View `json:"views"`
	// Packets counts the packets, each once, whatever number of views it has.
	Packets uint64 `json:"packets"`
	// Delivered are the packets of which userspace got bytes, a message without
	// bytes, or the end of the stream. Bytes are those that it got.
	Delivered Count `json:"delivered"`
	// Unseen is what userspace never gets of a connection that works as it should.
	Unseen Unseen `json:"unseen"`
	// Undelivered is what userspace could have got and, as far as the file
	// tells, did not. Bytes are those of the payload. Without a user view the file
	// tells only what the filter dropped.
	Undelivered Undelivered `json:"undelivered"`
	// Comparison tells whether both views hold the same bytes.
	Comparison Comparison `json:"comparison"`
	// Mapping is how reads and packets belong to each other.
	Mapping Mapping `json:"mapping"`
	// Latency is absent if no read belongs to a packet, or if there are no real times.
	Latency *Latency `json:"latency,omitempty"`
	// Losses are the packets that are not in the file.
	Losses Losses `json:"losses"`
	// Ambiguous are the packets whose id another one of this kind has as well, but
	// for the first of each id: nobody knows which of them a read got.
	Ambiguous Count `json:"ambiguous_ids"`
	// Beside is absent if the kernel kept nothing beside the bytes of any packet,
	// or the file does not tell.
	Beside *Beside `json:"beside,omitempty"`
	// Findings say all this in sentences, for people. Their words may change.
	Findings []Finding `json:"findings"`
}

// View is one view of a socket.
type View struct {
	// Name is "kernel", "user", "net", "link" or "wire".
	Name string `json:"name"`
	// Description is the interface's, of the first interface of this view.
	Description string `json:"description,omitempty"`
	// Packets counts them; Bytes are those that they had, without synthetic
	// headers, and Cut counts the packets that are not in the file whole.
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
	Cut     uint64 `json:"cut"`
	// Received, Sent and Undirected count the packets by direction.
	Received   uint64 `json:"received"`
	Sent       uint64 `json:"sent"`
	Undirected uint64 `json:"undirected"`
	// Drops are the losses that the packets themselves report.
	Drops uint64 `json:"drops"`
	// Before tells how many bytes the view has before offset 0 of the kernel
	// view, at least and at most; negative if it begins after that. It is absent
	// without a kernel view.
	Before *Range `json:"bytes_before_offset_0,omitempty"`
	// Disagree counts the packets whose bytes are not those of the kernel view.
	Disagree uint64 `json:"disagree"`
	// Foreign counts the packets that are not as this tool writes them.
	Foreign uint64 `json:"foreign"`
	// Statistics is absent if the file has none for this view: then the
	// capture did not end by itself, or another program wrote the file anew.
	Statistics *Statistics `json:"statistics,omitempty"`
}

// Statistics is the ledger that a capture writes at its end.
type Statistics struct {
	// Received = Delivered + Dropped, in packets.
	Received  uint64 `json:"received"`
	Delivered uint64 `json:"delivered"`
	Dropped   uint64 `json:"dropped"`
	// Accepted counts those of Received that the socket's filter let pass.
	Accepted uint64 `json:"accepted"`
	// OSDropped counts the packets that were gone before this observer.
	OSDropped uint64 `json:"os_dropped"`
	// Comment is what the capture said besides: how the packets of a socket balance.
	Comment string `json:"comment,omitempty"`
}

// Range is from Least to Most, both included.
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

// Unseen is what stays in the kernel.
type Unseen struct {
	// Handshake are SYN segments, and the ACK that answers a SYN-ACK.
	Handshake Count `json:"handshake"`
	// ACK are the other segments without payload.
	ACK Count `json:"ack"`
	// FIN and RST end streams. Userspace gets no bytes of them, but may get the
	// end of the stream: those are in Delivered, too.
	FIN Count `json:"fin"`
	RST Count `json:"rst"`
	// Repeated are segments whose payload userspace had or was sure to get from others.
	Repeated Count `json:"repeated"`
	// Headers are the bytes before the payload of the packets that userspace got
	// bytes of.
	Headers Count `json:"headers"`
	// HeaderSize is how many bytes those are in one packet. It is absent if there
	// is no such packet.
	HeaderSize *Range `json:"header_size,omitempty"`
}

// Undelivered is what did not reach userspace, by the reason in the file.
type Undelivered struct {
	// ByFilter was dropped by the socket's filter: its verdict was 0.
	ByFilter Count `json:"by_filter"`
	// ByQueue was dropped by the socket's receive queue, which was full.
	ByQueue Count `json:"by_queue"`
	// PassedOver is joined to no read, but later packets are, and the file does
	// not say why.
	PassedOver Count `json:"passed_over"`
	// AtEnd is joined to no read up to the file's end.
	AtEnd Count `json:"at_end"`
	// Truncated reached userspace in part, because the filter's verdict was
	// smaller than the packet. Bytes are those that it did not get.
	Truncated Count `json:"truncated_by_filter"`
	// InPart reached userspace in part for another reason.
	InPart Count `json:"in_part"`
}

// Comparison is of what userspace got with what the kernel view has.
type Comparison struct {
	// Reads counts the calls that returned bytes, and Bytes are those.
	Reads uint64 `json:"reads"`
	Bytes uint64 `json:"bytes"`
	// Same counts the reads of which all bytes were compared and are the same.
	Same uint64 `json:"same"`
	// Partial counts the reads of which some bytes were compared, and are the
	// same: the rest is not in the file.
	Partial uint64 `json:"partial"`
	// Differ counts the reads that differ. The IDs are of their first packets.
	Differ Count `json:"differ"`
	// Unknown counts the reads of which nothing could be compared: their packets
	// are not in the file, or were so long before that they are forgotten, or the
	// bytes are not in it.
	Unknown uint64 `json:"unknown"`
	// Compared is how many bytes were compared.
	Compared uint64 `json:"compared"`
}

// Mapping tells how many packets a read has bytes of, and the other way round.
type Mapping struct {
	// Reads counts the calls that took something: bytes, a message without any,
	// the end of a stream, an error.
	Reads uint64 `json:"reads"`
	// OneToOne counts reads that have the whole payload of one packet.
	OneToOne uint64 `json:"one_to_one"`
	// SeveralPackets counts reads that have bytes of several packets, at most Most of them.
	SeveralPackets uint64 `json:"several_packets"`
	Most           uint64 `json:"most_packets"`
	// PartOfPacket counts reads that have part of one packet's payload.
	PartOfPacket uint64 `json:"part_of_packet"`
	// SplitPackets counts packets whose payload went to several reads, at most
	// MostReads of them.
	SplitPackets uint64 `json:"split_packets"`
	MostReads    uint64 `json:"most_reads"`
	// Ends counts reads that got the end of a stream and no bytes.
	Ends uint64 `json:"ends"`
	// Errors counts those that got an error, such as that the peer has reset the
	// connection.
	Errors uint64 `json:"errors,omitempty"`
	// Before counts the reads of which all bytes came before the tap.
	Before uint64 `json:"before_tap,omitempty"`
	// Peeks counts the calls that left in the queue what they returned (MSG_PEEK).
	// They are no reads.
	Peeks uint64 `json:"peeks,omitempty"`
}

// Latency is the time from the last packet that a read needed, in the filter, to
// the return of the read, in nanoseconds.
//
// The least and the most are exact. The others come out of a histogram of fixed
// size, and are at most one part in 128 off.
type Latency struct {
	Reads  uint64 `json:"reads"`
	Least  int64  `json:"least_ns"`
	Median int64  `json:"median_ns"`
	P99    int64  `json:"p99_ns"`
	Most   int64  `json:"most_ns"`
	// Negative counts the reads that are not in this, because they came before
	// their packet.
	Negative uint64 `json:"negative"`
}

// Losses are the packets that somebody lost.
type Losses struct {
	// Tap counts packets that the filter saw and the file has not.
	Tap uint64 `json:"tap"`
	// Queue counts packets that the receive queue dropped.
	Queue uint64 `json:"queue"`
	// Late counts reads whose packets are forgotten: more packets or bytes lay
	// between than are kept. Such packets are counted as undelivered.
	Late uint64 `json:"late"`
}

// Finding is one thing that there is to say.
type Finding struct {
	// Topic is "begins", "reach", "beside", "direction", "ids", "bytes", "unseen", "lost",
	// "mapping", "latency" or "tap".
	Topic string `json:"topic"`
	// Warning says that something is not as it should be.
	Warning bool `json:"warning"`
	// Text is one or more sentences.
	Text string `json:"text"`
}
