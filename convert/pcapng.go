package convert

import (
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert/internal/window"
	"github.com/ebpfdump/ebpfdump/internal/remark"
)

// snaplen is the limit on a packet's bytes, the same for all link types but those of
// packetLimit: Wireshark stops reading at a longer packet, and libpcap refuses a file whose
// interfaces differ.
const snaplen = 262144

// longSnaplen is the limit for the link types of which Wireshark and libpcap read packets
// of 8 MiB and more: the longest whose block, with what a copy may add to it, fits into the
// window that files are read through.
const longSnaplen = window.Size - 128

// packetLimit is the limit on the bytes of a packet of some link type.
func packetLimit(link uint16) int {
	switch link {
	case linkDBus, linkUSBPcap, linkEBHSCR:
		return longSnaplen
	}
	return snaplen
}

// limitOf is the packetLimit of an interface's packets.
func limitOf(i *capture.Interface) int {
	if i.Layer != capture.LayerForeign {
		return snaplen
	}
	return packetLimit(i.LinkType)
}

// Link types, https://www.tcpdump.org/linktypes.html. LINKTYPE_RAW (101) is missing
// because libpcap refuses a file with two interfaces of that type. A pcap file has only
// one, see linkRaw.
const (
	linkEthernet = 1
	linkIPv4     = 228
	linkIPv6     = 229
	linkDBus     = 231
	linkUSBPcap  = 249
	linkUpperPDU = 252
	linkEBHSCR   = 279
)

// maxPacketOptions is the maximum size of a packet's options: Reception, flags, drop count,
// id, process, hash, queue, what is not linear, comment, end.
const maxPacketOptions = maxReception + (4 + nonLinearSize) + (4 + 4) + (4 + 8) + (4 + 8) + (4 + 8) + (4 + 8) + (4 + 4) + (optionSpace + maxOption) + 4

// Writer writes packets as one section of pcapng (draft-ietf-opsawg-pcapng), little
// endian, with timestamps in nanoseconds. A buffer of 1 MiB collects packets until it is
// full or until Flush.
//
// Only complete blocks reach the underlying writer, so a file can be read while it grows,
// unless the process is killed in the middle of a write, which leaves a partial block at
// the end. After a failed write every method returns its error; if the underlying writer
// is a file, it was truncated to end with a complete block.
//
// A Writer is for one goroutine at a time.
type Writer struct {
	out output
	// interfaces are those written so far, indexed by their id in the file.
	interfaces []*capture.Interface
	// last is the id of the most recently used interface.
	last int
	// copied holds the ids of other files' interfaces, and scratch a block being copied.
	copied     map[*fileInterface]uint32
	lastCopied *fileInterface
	lastID     uint32
	scratch    []byte
}

var _ PacketWriter = (*Writer)(nil)

// NewWriter begins a section. Nothing is written to w before the first Flush or until the
// buffer is full.
func NewWriter(w io.Writer, section Section) (*Writer, error) {
	return newWriter(w, bufferSize, appendSection(nil, section, nil, nil))
}

func createPcapng(w io.Writer, o WriteOptions) (PacketWriter, error) { return NewWriter(w, o.Section) }

func newWriter(w io.Writer, size int, header []byte) (*Writer, error) {
	ng := &Writer{out: output{w: w, buf: make([]byte, 0, size)}}
	if err := ng.out.block(header); err != nil {
		return nil, err
	}
	return ng, nil
}

// WritePacket writes an enhanced packet block, preceded by the interface description
// block if it is the interface's first packet. It does not keep p.
//
// Packets of LayerTransport get a synthetic IP header made from their addresses, packets
// of LayerMessage an exported PDU header with the addresses and their Call, or with an IP
// header and one of TCP or UDP if they have a Segment, and packets of LayerLink the VLAN tag of their Meta, if the interface has metadata. The result is
// truncated to 262144 bytes, or to nearly 1 MiB for the link types of which Wireshark
// reads such packets; the original length shows it. A packet of LayerForeign that lacks the
// header of its link type is an error where Wireshark would refuse the file for it.
func (w *Writer) WritePacket(p *capture.Packet) error {
	if w.out.err != nil {
		return w.out.err
	}
	if p.Interface == nil {
		return errors.New("writing packet: no interface")
	}
	// A packet that cannot be written must not add an interface.
	if err := checkHeader(p); err != nil {
		return fmt.Errorf("writing packet of %s: %w", p.Interface.Name(), err)
	}
	if err := w.AddInterface(p.Interface); err != nil {
		return err
	}
	return w.writeEnhancedPacket(p)
}

// checkHeader returns an error if appendHeader cannot work for a packet, or if the packet lacks the
// header that it should have already.
func checkHeader(p *capture.Packet) error {
	i := p.Interface
	if i.Layer == capture.LayerTransport && !i.IPv6 && !(fitsIPv4(p.Src.Addr()) && fitsIPv4(p.Dst.Addr())) {
		return fmt.Errorf("IPv4 header for %v > %v", p.Src.Addr(), p.Dst.Addr())
	}
	if isHeadless(p) {
		return fmt.Errorf("its %d bytes are no packet of link type %d, and Wireshark would refuse the file", len(p.Data), i.LinkType)
	}
	_, err := linkType(i)
	return err
}

// maxHeader is the maximum that appendHeader appends.
const maxHeader = max(ipv4HeaderSize, ipv6HeaderSize+jumboHeaderSize, maxPDUHeader, maxSegmentHeader)

// appendHeader appends the header that the interface's link type requires before the
// packet's own bytes.
func appendHeader(b []byte, p *capture.Packet) []byte {
	switch p.Interface.Layer {
	case capture.LayerTransport:
		if p.Interface.IPv6 {
			return appendIPv6Header(b, p.Src.Addr(), p.Dst.Addr(), p.Protocol, originalLength(p))
		}
		return appendIPv4Header(b, p.Src.Addr(), p.Dst.Addr(), p.Protocol, originalLength(p))
	case capture.LayerMessage:
		if isNetlink(p.Interface) {
			return appendNetlinkHeader(b, p)
		}
		return appendPDUHeader(b, p)
	}
	return b
}

// appendPacketData appends a packet's header and bytes, and returns its captured and its
// original length. before appends the header.
func appendPacketData(b []byte, p *capture.Packet, before func([]byte, *capture.Packet) []byte) (_ []byte, captured, original uint32) {
	start := len(b)
	data := p.Data
	if restoresTag(p) {
		b, data = appendTag(append(b, data[:tagPlace]...), &p.Meta), data[tagPlace:]
	} else {
		b = before(b, p)
	}
	added := len(b) - start - (len(p.Data) - len(data))
	b = append(b, data[:min(len(data), limitOf(p.Interface)-(len(b)-start))]...)
	return b, uint32(len(b) - start), uint32(min(uint64(added)+uint64(originalLength(p)), math.MaxUint32))
}

// appendSizedData appends both lengths of a packet, its header and its bytes, padded to
// 32 bits.
func appendSizedData(b []byte, p *capture.Packet) []byte {
	lengths := len(b)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	b, captured, original := appendPacketData(b, p, appendHeader)
	order.PutUint32(b[lengths:], captured)
	order.PutUint32(b[lengths+4:], original)
	return pad(b, int(captured))
}

// originalLength is the packet's length in bytes before truncation.
func originalLength(p *capture.Packet) int { return max(p.Len, len(p.Data)) }

// writeEnhancedPacket writes the block of draft-ietf-opsawg-pcapng, section 4.3.
func (w *Writer) writeEnhancedPacket(p *capture.Packet) error {
	size := blockFrame + 20 + maxHeader + min(len(p.Data), limitOf(p.Interface)) + 3 +
		maxPacketOptions - maxOption + commentSize(p)
	if err := w.out.reserve(size); err != nil {
		return err
	}
	start := len(w.out.buf)
	b := beginBlock(w.out.buf, blockEnhancedPacket)
	b = order.AppendUint32(b, uint32(w.last))
	b = appendTime(b, p.Time)
	b = appendSizedData(b, p)
	b = appendPacketOptions(b, p)
	w.out.buf = endBlock(b, start)
	w.out.packets++
	return nil
}

// appendPacketOptions appends what is known of the packet besides its bytes. The comment
// comes last, since some readers stop at it. There is no epb_verdict, since tools that
// rewrite files corrupt it.
func appendPacketOptions(b []byte, p *capture.Packet) []byte {
	empty := len(b)
	if flags := flagsOf(p); flags != 0 {
		b = appendOptionUint32(b, packetFlags, flags)
	}
	if p.Drops > 0 {
		b = appendOptionUint64(b, packetDropCount, p.Drops)
	}
	if p.ID != 0 {
		b = appendOptionUint64(b, packetID, p.ID)
	}
	if p.PID != 0 {
		b = appendOptionUint64(b, packetProcess, uint64(p.TID)<<32|uint64(p.PID))
	}
	if p.Meta.Hash|p.Meta.Queue|p.Meta.NonLinear != 0 {
		b = appendMetaOptions(b, p)
	}
	if hasReception(p) {
		b = appendReception(b, &p.Reception)
	}
	if hasComment(p) {
		b = appendComment(b, p)
	}
	if len(b) == empty {
		return b
	}
	return appendEndOfOptions(b)
}

// AddInterface writes the interface block now if it is not in the file yet, instead of
// with the interface's first packet.
//
// Either has a drawback. libpcap judges a file by all its interfaces, used or not, so a
// file for tcpdump should have only those with packets. The reordercap of Wireshark 4.0
// knows only the interfaces before the first packet, so a file with several views should
// begin with all of them.
func (w *Writer) AddInterface(i *capture.Interface) error {
	if w.last < len(w.interfaces) && w.interfaces[w.last] == i {
		return w.out.err
	}
	id := w.writtenID(i)
	if id < 0 {
		if err := w.writeInterface(i); err != nil {
			return err
		}
		id = len(w.interfaces)
		w.interfaces = append(w.interfaces, i)
	}
	w.last = id
	return w.out.err
}

// writtenID returns the interface's id, -1 if it was not written. The search is linear,
// since there are few interfaces.
func (w *Writer) writtenID(i *capture.Interface) int {
	for id, known := range w.interfaces {
		if known == i {
			return id
		}
	}
	return -1
}

// filterText comes before a filter that is a text of libpcap's language.
const filterText = "\x00"

// writeInterface writes the block of draft-ietf-opsawg-pcapng, section 4.2.
func (w *Writer) writeInterface(i *capture.Interface) error {
	const resolution = "\x09" // 10^-9 s
	link, err := linkType(i)
	if err != nil {
		return fmt.Errorf("writing interface block: %w", err)
	}
	name := i.Name()
	size := blockFrame + 8 + 4*(optionSpace+maxOption) + 4
	if err := w.out.reserve(size); err != nil {
		return err
	}
	start := len(w.out.buf)
	b := beginBlock(w.out.buf, blockInterface)
	b = order.AppendUint32(b, uint32(link))
	b = order.AppendUint32(b, uint32(limitOf(i)))
	// This must be the first option, even before a comment: scapy misreads the clock
	// otherwise.
	b = appendOption(b, interfaceResolution, resolution)
	if name != "" {
		b = appendOption(b, interfaceName, name)
	}
	if description := remark.Description(i); description != "" {
		b = appendOption(b, interfaceDescription, description)
	}
	if i.Expression != "" {
		b = appendOption(b, interfaceFilter, filterText+i.Expression)
	}
	b = appendEndOfOptions(b)
	w.out.buf = endBlock(b, start)
	return nil
}

func linkType(i *capture.Interface) (uint16, error) {
	switch i.Layer {
	case capture.LayerLink:
		return linkEthernet, nil
	case capture.LayerNetwork, capture.LayerTransport:
		if i.IPv6 {
			return linkIPv6, nil
		}
		return linkIPv4, nil
	case capture.LayerMessage:
		if isNetlink(i) {
			return linkNetlink, nil
		}
		return linkUpperPDU, nil
	case capture.LayerForeign:
		return i.LinkType, nil
	}
	return 0, fmt.Errorf("unknown layer %d", i.Layer)
}

// WriteStatistics writes an interface statistics block (draft-ietf-opsawg-pcapng, section
// 4.6). An interface without packets is not in the file, so it gets no statistics.
func (w *Writer) WriteStatistics(s capture.Statistics) error {
	id := w.writtenID(s.Interface)
	if id < 0 {
		return w.out.err
	}
	const fixed = blockFrame + 12 + optionSpace + 7*(4+8) + 4
	if err := w.out.reserve(fixed + min(len(s.Comment), maxOption)); err != nil {
		return err
	}
	start := len(w.out.buf)
	b := beginBlock(w.out.buf, blockStatistics)
	b = order.AppendUint32(b, uint32(id))
	b = appendTime(b, s.End)
	if s.Comment != "" {
		b = appendOption(b, optionComment, s.Comment)
	}
	b = appendOptionTime(b, statisticsStart, s.Start)
	b = appendOptionTime(b, statisticsEnd, s.End)
	b = appendOptionUint64(b, statisticsReceived, s.Received)
	b = appendOptionUint64(b, statisticsDropped, s.Dropped)
	b = appendOptionUint64(b, statisticsAccepted, s.Accepted)
	b = appendOptionUint64(b, statisticsOSDropped, s.OSDropped)
	b = appendOptionUint64(b, statisticsDelivered, s.Delivered)
	b = appendEndOfOptions(b)
	w.out.buf = endBlock(b, start)
	return nil
}

// Written is the number of packets that the underlying writer has taken completely, also
// after a failed write.
func (w *Writer) Written() uint64 { return w.out.written }

// Buffered is the number of bytes that wait for Flush.
func (w *Writer) Buffered() int { return len(w.out.buf) }

// Flush writes what is buffered to the underlying writer.
func (w *Writer) Flush() error { return w.out.flush() }
