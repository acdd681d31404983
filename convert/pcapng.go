// Package convert reads and writes packets in the formats that other tools know,
// and reads the text that filters and servers print.
package convert

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/remark"
)

// snaplen is the most bytes that a packet block holds, in every interface:
// Wireshark refuses the rest of a file after a longer packet, and libpcap a
// file whose interfaces differ.
const snaplen = 262144

// Link types, https://www.tcpdump.org/linktypes.html. LINKTYPE_RAW (101) is not
// among them: libpcap refuses a file with two interfaces of that type.
const (
	linkEthernet = 1
	linkIPv4     = 228
	linkIPv6     = 229
	linkUpperPDU = 252
)

// maxPacketOptions is the most bytes that a packet's options take: flags, drop
// count, id, process, hash, queue, comment, end.
const maxPacketOptions = (4 + 4) + (4 + 8) + (4 + 8) + (4 + 8) + (4 + 8) + (4 + 4) + (optionSpace + maxOption) + 4

// Section describes a whole file. Every field may be empty.
type Section struct {
	// Hardware is the machine's architecture, as uname -m prints it.
	Hardware string
	// OS is the name and version of the operating system.
	OS string
	// Application is the name and version of the program that captured.
	Application string
	// Comment is for the reader, such as the command line.
	Comment string
}

// Writer writes packets as one section of pcapng (draft-ietf-opsawg-pcapng),
// little endian, with timestamps of nanoseconds. Packets wait in a buffer of
// 1 MiB until it is full or until Flush.
//
// Whatever reaches the underlying writer is whole blocks, so a file can be read
// at any moment. After a failed write every method returns its error; if the
// underlying writer is a file, it was cut to end with a whole block.
//
// A Writer is for one goroutine at a time.
type Writer struct {
	out output
	// interfaces are those written so far; the index is the id in the file.
	interfaces []*capture.Interface
	// last is the id of the interface that was used last.
	last int
}

var _ capture.Sink = (*Writer)(nil)

// NewWriter begins a section. The first bytes reach w with the first Flush or
// when the buffer is full.
func NewWriter(w io.Writer, section Section) (*Writer, error) {
	header, err := sectionHeader(section)
	if err != nil {
		return nil, fmt.Errorf("writing section header: %w", err)
	}
	return &Writer{out: output{w: w, buf: append(make([]byte, 0, bufferSize), header...)}}, nil
}

// sectionHeader lets pcapgo make the block and cuts it out, since pcapgo adds an
// interface of its own. The other blocks are ours: pcapgo knows no options of
// packets and not all statistics, and puts an interface's resolution last.
func sectionHeader(section Section) ([]byte, error) {
	var file bytes.Buffer
	options := pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{
		Hardware:    cut(section.Hardware, maxOption),
		OS:          cut(section.OS, maxOption),
		Application: cut(section.Application, maxOption),
		Comment:     cut(section.Comment, maxOption),
	}}
	ng, err := pcapgo.NewNgWriterInterface(&file, pcapgo.NgInterface{LinkType: layers.LinkTypeEthernet}, options)
	if err != nil {
		return nil, err
	}
	if err := ng.Flush(); err != nil {
		return nil, err
	}
	return file.Bytes()[:order.Uint32(file.Bytes()[4:])], nil
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

// originalLength is the length in bytes that the packet had.
func originalLength(p *capture.Packet) int { return max(p.Len, len(p.Data)) }

// writeEnhancedPacket writes the block of draft-ietf-opsawg-pcapng, section 4.3.
func (w *Writer) writeEnhancedPacket(p *capture.Packet) error {
	size := blockFrame + 20 + maxHeader + min(len(p.Data), snaplen) + 3 +
		maxPacketOptions - maxOption + min(len(p.Comment)+remark.MetaSize, maxOption)
	if err := w.out.reserve(size); err != nil {
		return err
	}
	start := len(w.out.buf)
	b := beginBlock(w.out.buf, blockEnhancedPacket)
	b = order.AppendUint32(b, uint32(w.last))
	b = appendTime(b, p.Time)
	lengths := len(b)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	b, captured, original := appendPacketData(b, p)
	order.PutUint32(b[lengths:], captured)
	order.PutUint32(b[lengths+4:], original)
	b = pad(b, int(captured))
	b = appendPacketOptions(b, p)
	w.out.buf = endBlock(b, start)
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
	if p.Comment != "" || remark.HasMeta(&p.Meta) {
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
	const size = blockFrame + 12 + 7*(4+8) + 4
	if err := w.out.reserve(size); err != nil {
		return err
	}
	start := len(w.out.buf)
	b := beginBlock(w.out.buf, blockStatistics)
	b = order.AppendUint32(b, uint32(id))
	b = appendTime(b, s.End)
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

// Flush hands what waits in the buffer to the underlying writer.
func (w *Writer) Flush() error { return w.out.flush() }
