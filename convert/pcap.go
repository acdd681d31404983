package convert

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert/internal/window"
)

// Magic numbers of pcap (draft-ietf-opsawg-pcap), by the unit of their times.
const (
	pcapMicroseconds = 0xa1b2c3d4
	pcapNanoseconds  = 0xa1b23c4d
)

const (
	pcapHeader = 24 // of a file, in bytes
	pcapRecord = 16 // before each packet
)

// linkRaw is LINKTYPE_RAW: a packet that begins with the header of either version
// of IP. Everything on libpcap reads it, and not all of it (ngrep, tcpflow) the
// types that tell the versions apart. It is for pcap only: a pcapng file with two
// interfaces of this type is refused by libpcap.
const linkRaw = 101

// pcapLinkType is the link type that packets of an interface have in pcap.
func pcapLinkType(i *capture.Interface) (uint16, error) {
	link, err := linkType(i)
	if link == linkIPv4 || link == linkIPv6 {
		link = linkRaw
	}
	return link, err
}

// pcapReader reads pcap of either byte order, with times of micro- or nanoseconds.
type pcapReader struct {
	in    *window.Window
	order binary.ByteOrder
	unit  int64 // of the times, in nanoseconds
	iface fileInterface
	// ip are the interfaces of packets that begin with an IP header, in a file of
	// LINKTYPE_RAW; the file's own has those that do not, against the rules.
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
	// The upper bits are about frame check sequences.
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
	return fileInterface{own: &i, plain: &i}
}

// interfaceOf is the interface that a packet gets.
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

// pcapWriter writes pcap, little endian, with times of nanoseconds. A file has
// one link type, that of the first packet: IP without a link header is
// LINKTYPE_RAW.
type pcapWriter struct {
	packetForm
	link  uint16
	begun bool
}

func createPcap(w io.Writer, _ WriteOptions) (PacketWriter, error) {
	return &pcapWriter{packetForm: packetForm{output{w: w, buf: make([]byte, 0, bufferSize), whole: wholeRecords}}}, nil
}

// wholeRecords returns the size of the records in b that end within the first n
// bytes, and their number. The header, which is written on its own, is none.
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

// WritePacket writes one packet. Packets of another link type are an error.
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
	if link != w.link {
		return fmt.Errorf("writing packet of %s: its link type is %d, and pcap has room for one, which is %d", p.Interface.Name(), link, w.link)
	}
	if err := w.out.reserve(pcapRecord + maxHeader + min(len(p.Data), snaplen)); err != nil {
		return err
	}
	start := len(w.out.buf)
	// Times are unsigned 32-bit seconds, up to the year 2106.
	t := max(p.Time, 0)
	b := order.AppendUint32(w.out.buf, uint32(min(t/1e9, math.MaxUint32)))
	b = order.AppendUint32(b, uint32(t%1e9))
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	b, captured, original := appendPacketData(b, p)
	order.PutUint32(b[start+8:], captured)
	order.PutUint32(b[start+12:], original)
	w.out.buf = b
	w.out.packets++
	return nil
}

// begin writes the file's header once the link type is known.
func (w *pcapWriter) begin(link uint16) error {
	if w.begun {
		return w.out.err
	}
	w.begun, w.link = true, link
	b := order.AppendUint32(w.out.buf, pcapNanoseconds)
	b = order.AppendUint32(b, 4<<16|2) // version 2.4
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	b = order.AppendUint32(b, snaplen)
	w.out.buf = order.AppendUint32(b, uint32(link))
	w.out.whole = func([]byte, int) (int, int) { return 0, 0 } // of half a header nothing is to stay
	err := w.out.flush()
	w.out.whole = wholeRecords
	return err
}

// Flush hands on what waits in the buffer. A file that has no packet by now is
// one of Ethernet.
func (w *pcapWriter) Flush() error {
	if err := w.begin(linkEthernet); err != nil {
		return err
	}
	return w.out.flush()
}
