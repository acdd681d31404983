package convert

import (
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/remark"
)

// snaplen is the most bytes that a packet block holds, in every interface:
// Wireshark refuses the rest of a file after a longer packet, and libpcap a
// file whose interfaces differ.
const snaplen = 262144

// Link types, https://www.tcpdump.org/linktypes.html. LINKTYPE_RAW (101) is not
// among them: libpcap refuses a file with two interfaces of that type. A pcap
// file has only one, see linkRaw.
const (
	linkEthernet = 1
	linkIPv4     = 228
	linkIPv6     = 229
	linkUpperPDU = 252
)

// maxPacketOptions is the most bytes that a packet's options take: flags, drop
// count, id, process, hash, queue, comment, end.
const maxPacketOptions = (4 + 4) + (4 + 8) + (4 + 8) + (4 + 8) + (4 + 8) + (4 + 4) + (optionSpace + maxOption) + 4

// Writer writes packets as one section of pcapng (draft-ietf-opsawg-pcapng),
// little endian, with timestamps of nanoseconds. Packets wait in a buffer of
// 1 MiB until it is full or until Flush.
//
// Whatever reaches the underlying writer is whole blocks, so a file can be read
// while it grows. (Only a process that is killed in the middle of a write leaves
// the beginning of a block behind the last whole one.) After a failed write every method returns its error; if the
// underlying writer is a file, it was cut to end with a whole block.
//
// A Writer is for one goroutine at a time.
type Writer struct {
	out output
	// interfaces are those written so far; the index is the id in the file.
	interfaces []*capture.Interface
	// last is the id of the interface that was used last.
	last int
	// copied has the ids of the interfaces of other files, and scratch is a block
	// that is being copied.
	copied     map[*fileInterface]uint32
	lastCopied *fileInterface
	lastID     uint32
	scratch    []byte
}

var _ PacketWriter = (*Writer)(nil)

// NewWriter begins a section. The first bytes reach w with the first Flush or
// when the buffer is full.
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

// WritePacket writes an enhanced packet block, and before an interface's first
// packet the interface block. It does not keep p.
//
// Packets of LayerTransport get a synthetic IP header made of their addresses,
// packets of LayerMessage a header with the same and with their Call, and
// packets of LayerLink the VLAN tag of their Meta, if it is known of the whole
// interface. What then exceeds 262144 bytes is cut off; the original length says so.
func (w *Writer) WritePacket(p *capture.Packet) error {
	if w.out.err != nil {
		return w.out.err
	}
	if p.Interface == nil {
		return errors.New("writing packet: no interface")
	}
	// A packet that cannot be written adds no interface.
	if err := checkHeader(p); err != nil {
		return fmt.Errorf("writing packet of %s: %w", p.Interface.Name(), err)
	}
	if err := w.AddInterface(p.Interface); err != nil {
		return err
	}
	return w.writeEnhancedPacket(p)
}

// checkHeader tells why appendHeader cannot work for a packet.
func checkHeader(p *capture.Packet) error {
	i := p.Interface
	if i.Layer == capture.LayerTransport && !i.IPv6 && !(fitsIPv4(p.Src.Addr()) && fitsIPv4(p.Dst.Addr())) {
		return fmt.Errorf("IPv4 header for %v > %v", p.Src.Addr(), p.Dst.Addr())
	}
	_, err := linkType(i)
	return err
}

// maxHeader is the most bytes that appendHeader appends.
const maxHeader = max(ipv4HeaderSize, ipv6HeaderSize+jumboHeaderSize, maxPDUHeader)

// appendHeader appends what the interface's link type wants before the packet's own bytes.
func appendHeader(b []byte, p *capture.Packet) []byte {
	switch p.Interface.Layer {
	case capture.LayerTransport:
		if p.Interface.IPv6 {
			return appendIPv6Header(b, p.Src.Addr(), p.Dst.Addr(), p.Protocol, originalLength(p))
		}
		return appendIPv4Header(b, p.Src.Addr(), p.Dst.Addr(), p.Protocol, originalLength(p))
	case capture.LayerMessage:
		return appendPDUHeader(b, p)
	}
	return b
}

// appendPacketData appends a packet's header and bytes, and returns how many
// these are and how many the packet had.
func appendPacketData(b []byte, p *capture.Packet) (_ []byte, captured, original uint32) {
	start := len(b)
	data := p.Data
	if restoresTag(p) {
		b, data = appendTag(append(b, data[:tagPlace]...), &p.Meta), data[tagPlace:]
	} else {
		b = appendHeader(b, p)
	}
	added := len(b) - start - (len(p.Data) - len(data))
	b = append(b, data[:min(len(data), snaplen-(len(b)-start))]...)
	return b, uint32(len(b) - start), uint32(min(uint64(added)+uint64(originalLength(p)), math.MaxUint32))
}

// appendSizedData appends both lengths of a packet, its header and its bytes, and
// zeros up to the next 32 bits.
func appendSizedData(b []byte, p *capture.Packet) []byte {
	lengths := len(b)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	b, captured, original := appendPacketData(b, p)
	order.PutUint32(b[lengths:], captured)
	order.PutUint32(b[lengths+4:], original)
	return pad(b, int(captured))
}

// originalLength is the length in bytes that the packet had.
func originalLength(p *capture.Packet) int { return max(p.Len, len(p.Data)) }

// writeEnhancedPacket writes the block of draft-ietf-opsawg-pcapng, section 4.3.
func (w *Writer) writeEnhancedPacket(p *capture.Packet) error {
	size := blockFrame + 20 + maxHeader + min(len(p.Data), snaplen) + 3 +
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

// appendPacketOptions appends what is known of the packet besides its bytes.
// The comment is the last one, since some readers stop at it. There is no
// epb_verdict: tools that rewrite files make damaged ones of it.
func appendPacketOptions(b []byte, p *capture.Packet) []byte {
	empty := len(b)
	switch p.Direction {
	case capture.Inbound:
		b = appendOptionUint32(b, packetFlags, 1)
	case capture.Outbound:
		b = appendOptionUint32(b, packetFlags, 2)
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
	if p.Meta.Hash|p.Meta.Queue != 0 {
		b = appendMetaOptions(b, p)
	}
	if hasComment(p) {
		b = appendComment(b, p)
	}
	if len(b) == empty {
		return b
	}
	return appendEndOfOptions(b)
}

// AddInterface writes the interface block now if it is not in the file yet,
// and not with the interface's first packet.
//
// Both have a price. libpcap refuses a file by all its interfaces, used or not,
// so a file for tcpdump should have only those with packets. Wireshark 4.0's
// reordercap knows only the interfaces before the first packet, so a file with
// several views is better off with all of them in front.
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

// writtenID returns the interface's id, -1 if it was not written. There are few interfaces.
func (w *Writer) writtenID(i *capture.Interface) int {
	for id, known := range w.interfaces {
		if known == i {
			return id
		}
	}
	return -1
}

// writeInterface writes the block of draft-ietf-opsawg-pcapng, section 4.2.
func (w *Writer) writeInterface(i *capture.Interface) error {
	const resolution = "\x09" // 10^-9 s
	link, err := linkType(i)
	if err != nil {
		return fmt.Errorf("writing interface block: %w", err)
	}
	name := i.Name()
	size := blockFrame + 8 + 3*(optionSpace+maxOption) + 4
	if err := w.out.reserve(size); err != nil {
		return err
	}
	start := len(w.out.buf)
	b := beginBlock(w.out.buf, blockInterface)
	b = order.AppendUint32(b, uint32(link))
	b = order.AppendUint32(b, snaplen)
	// The first option, without a comment before it: scapy misreads the clock otherwise.
	b = appendOption(b, interfaceResolution, resolution)
	if name != "" {
		b = appendOption(b, interfaceName, name)
	}
	if description := remark.Description(i); description != "" {
		b = appendOption(b, interfaceDescription, description)
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
		return linkUpperPDU, nil
	case capture.LayerForeign:
		return i.LinkType, nil
	}
	return 0, fmt.Errorf("unknown layer %d", i.Layer)
}

// WriteStatistics writes an interface statistics block (draft-ietf-opsawg-pcapng,
// section 4.6). An interface without packets is not in the file, and has none.
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

// Written is how many packets the underlying writer has taken whole, so far or,
// after a failed write, at all.
func (w *Writer) Written() uint64 { return w.out.written }

// Buffered is how many bytes wait for Flush.
func (w *Writer) Buffered() int { return len(w.out.buf) }

// Flush hands what waits in the buffer to the underlying writer.
func (w *Writer) Flush() error { return w.out.flush() }
