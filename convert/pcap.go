package convert

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert/internal/window"
)

// Magic numbers of pcap (draft-ietf-opsawg-pcap), by the unit of timestamps.
const (
	pcapMicroseconds = 0xa1b2c3d4
	pcapNanoseconds  = 0xa1b23c4d
)

const (
	pcapHeader = 24 // of a file, in bytes
	pcapRecord = 16 // before each packet
)

// linkRaw is LINKTYPE_RAW: packets that begin with an IPv4 or IPv6 header. Everything
// based on libpcap reads it, while some programs (ngrep, tcpflow) do not read the types
// that are specific to a version. It is used in pcap only: libpcap refuses a pcapng file
// with two interfaces of this type.
const linkRaw = 101

// pcapLinkType returns the link type of an interface's packets in pcap. Segments are there
// without what is for Wireshark alone.
func pcapLinkType(i *capture.Interface) (uint16, error) {
	link, err := linkType(i)
	if link == linkIPv4 || link == linkIPv6 || hasSegments(i) {
		link = linkRaw
	}
	return link, err
}

// fitsPcap tells why pcap has no room for a packet: a call that failed, on an interface whose
// packets are written as segments.
func fitsPcap(p *capture.Packet) Reason {
	if !hasSegments(p.Interface) || isPlaced(p) {
		return 0
	}
	return ReasonNoBytes
}

// pcapReader reads pcap of either byte order, with timestamps in micro- or nanoseconds.
type pcapReader struct {
	in    *window.Window
	order binary.ByteOrder
	unit  int64 // of timestamps, in nanoseconds
	iface fileInterface
	// ip holds an interface for each version of IP in a file of LINKTYPE_RAW. Packets
	// that begin with no IP header, in violation of the format, belong to the file's own
	// interface.
	ip     map[byte]*fileInterface
	packet capture.Packet
	strip  stripper
	used   int
	err    error

	packets uint64
	cut     CutOff
	options ReadOptions
}

func isPcap(head []byte) bool {
	order, _ := pcapMagic(head)
	return order != nil
}

func pcapMagic(head []byte) (order binary.ByteOrder, unit int64) {
	if len(head) < 4 {
		return nil, 0
	}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		switch order.Uint32(head) {
		case pcapMicroseconds:
			return order, 1000
		case pcapNanoseconds:
			return order, 1
		}
	}
	return nil, 0
}

func openPcap(in *window.Window, o ReadOptions) (Reader, error) {
	r := &pcapReader{in: in, options: o}
	head, err := in.Peek(pcapHeader)
	if r.order, r.unit = pcapMagic(head); r.order == nil {
		return nil, &InputError{Name: o.Name, Err: errors.New("a pcap file begins with another number")}
	}
	if err != nil {
		return nil, &InputError{Name: o.Name, Err: cutOff(err)}
	}
	// The upper bits describe frame check sequences.
	link := uint16(r.order.Uint32(head[20:]))
	r.iface = pcapInterface(link)
	if link == linkRaw {
		ipv4, ipv6 := pcapInterface(linkIPv4), pcapInterface(linkIPv6)
		r.ip = map[byte]*fileInterface{4: &ipv4, 6: &ipv6}
	}
	in.Use(pcapHeader)
	return r, nil
}

func pcapInterface(link uint16) fileInterface {
	i := plainInterface("", "", link)
	return fileInterface{own: &i, plain: &i, said: &i}
}

// interfaceOf returns the interface of a packet.
func (r *pcapReader) interfaceOf(data []byte) *fileInterface {
	if len(data) > 0 {
		if i := r.ip[data[0]>>4]; i != nil {
			return i
		}
	}
	return &r.iface
}

// Next returns the next packet.
func (r *pcapReader) Next() (*capture.Packet, error) {
	r.in.Use(r.used)
	r.used = 0
	if r.err != nil {
		return nil, r.err
	}
	if err := r.record(); errors.Is(err, io.EOF) {
		r.err = io.EOF
	} else if err != nil {
		failure := &InputError{Name: r.options.Name, Offset: r.in.Offset(), Err: err}
		r.err = failure
		if errors.Is(err, window.ErrCutOff) {
			r.cut, r.err = r.options.cutOff(failure, r.in, r.packets)
		}
	} else {
		r.packets++
	}
	return &r.packet, r.err
}

func (r *pcapReader) record() error {
	head, err := r.in.Peek(pcapRecord)
	if len(head) == 0 && errors.Is(err, io.EOF) {
		return io.EOF
	}
	if err != nil {
		return cutOff(err)
	}
	seconds, fraction := r.order.Uint32(head), r.order.Uint32(head[4:])
	captured, original := r.order.Uint32(head[8:]), r.order.Uint32(head[12:])
	if captured > window.Size-pcapRecord {
		return fmt.Errorf("a packet of %d bytes: more than %d are not read", captured, window.Size-pcapRecord)
	}
	record, err := r.in.Peek(pcapRecord + int(captured))
	if err != nil {
		return cutOff(err)
	}
	r.used = len(record)
	r.packet = capture.Packet{
		Time: int64(seconds)*1e9 + int64(fraction)*r.unit,
		Data: record[pcapRecord:len(record):len(record)],
		Len:  int(max(original, captured)),
	}
	r.strip.packet(&r.packet, r.interfaceOf(r.packet.Data))
	return nil
}

// pcapWriter writes pcap, little endian, with timestamps in nanoseconds. A file has one
// link type, that of the first packet: IP without a link header is LINKTYPE_RAW.
type pcapWriter struct {
	packetForm
	link  uint16
	begun bool
	empty uint16 // link type while there are no packets; 0 if that is not known
}

func createPcap(w io.Writer, _ WriteOptions) (PacketWriter, error) {
	return &pcapWriter{packetForm: packetForm{output{w: w, buf: make([]byte, 0, bufferSize), whole: wholeRecords}}}, nil
}

// wholeRecords returns the size and the number of the records in b that end within the
// first n bytes. The file header is written separately.
func wholeRecords(b []byte, n int) (size, packets int) {
	for size+pcapRecord <= n {
		next := size + pcapRecord + int(order.Uint32(b[size+8:]))
		if next > n {
			break
		}
		size = next
		packets++
	}
	return size, packets
}

// WritePacket writes one packet. A packet of another link type is an error.
func (w *pcapWriter) WritePacket(p *capture.Packet) error {
	if p.Interface == nil {
		return errors.New("writing packet: no interface")
	}
	if err := checkHeader(p); err != nil {
		return fmt.Errorf("writing packet of %s: %w", p.Interface.Name(), err)
	}
	link, err := pcapLinkType(p.Interface)
	if err != nil {
		return err
	}
	if err := w.begin(link); err != nil {
		return err
	}
	if fitsPcap(p) != 0 {
		return fmt.Errorf("writing packet of %s: it moved no bytes, and pcap has room for nothing else", p.Interface.Name())
	}
	if link != w.link {
		return fmt.Errorf("writing packet of %s: its link type is %d, and pcap has room for one, which is %d", p.Interface.Name(), link, w.link)
	}
	if err := w.out.reserve(pcapRecord + maxHeader + min(len(p.Data), limitOf(p.Interface))); err != nil {
		return err
	}
	start := len(w.out.buf)
	// Timestamps are unsigned 32-bit seconds, which end in 2106.
	t := max(p.Time, 0)
	b := order.AppendUint32(w.out.buf, uint32(min(t/1e9, math.MaxUint32)))
	b = order.AppendUint32(b, uint32(t%1e9))
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	before := appendHeader
	if link == linkRaw && isPlaced(p) {
		before = appendSegmentIP
	}
	b, captured, original := appendPacketData(b, p, before)
	order.PutUint32(b[start+8:], captured)
	order.PutUint32(b[start+12:], original)
	w.out.buf = b
	w.out.packets++
	return nil
}

// AddInterface says which link type a file has that is read before its first packet comes.
func (w *pcapWriter) AddInterface(i *capture.Interface) (err error) {
	if w.empty == 0 {
		w.empty, err = pcapLinkType(i)
	}
	return cmp.Or(err, w.out.err)
}

// begin writes the file header once the link type is known.
func (w *pcapWriter) begin(link uint16) error {
	if w.begun {
		return w.out.err
	}
	w.begun, w.link = true, link
	b := order.AppendUint32(w.out.buf, pcapNanoseconds)
	b = order.AppendUint32(b, 4<<16|2) // version 2.4
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	b = order.AppendUint32(b, uint32(packetLimit(link)))
	w.out.buf = order.AppendUint32(b, uint32(link))
	w.out.whole = func([]byte, int) (int, int) { return 0, 0 } // half a header must not remain
	err := w.out.flush()
	w.out.whole = wholeRecords
	return err
}

// Flush writes what is buffered. A file without packets gets the link type of the first interface, or
// Ethernet.
func (w *pcapWriter) Flush() error {
	if err := w.begin(cmp.Or(w.empty, linkEthernet)); err != nil {
		return err
	}
	return w.out.flush()
}
