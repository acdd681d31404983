package convert

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert/internal/headers"
	"github.com/ebpfdump/ebpfdump/internal/remark"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// jsonWriter writes one JSON object a line (RFC 8259) for each packet:
//
//	time        when, in UTC with nine digits after the second (RFC 3339)
//	interface   name of the interface, such as "tcp:kernel"
//	kind        kind of socket, such as "tcp"
//	view        whose bytes these are, such as "kernel"
//	device      interface of the machine that it was seen on, such as "eth0", in the view wire
//	layer       what data begins with: "link", "network", "transport", "message" or "foreign"
//	link_type   for layer "foreign": a number of https://www.tcpdump.org/linktypes.html
//	packet_id   the same in every view of a packet
//	direction   "in" or "out"
//	length      length of the packet in bytes, from that layer on
//	captured    how many bytes data has
//	drops       packets that this observer lost since the packet before
//	protocol    IP protocol number
//	src, dst    IP addresses
//	src_port, dst_port
//	vlan        id of the VLAN whose tag the kernel keeps beside the bytes
//	vlan_tci    that tag: priority, drop eligible indicator, id
//	vlan_proto  its ethertype: 33024 (802.1Q) or 34984 (802.1ad)
//	mark, priority
//	socket, sockets  number of the socket in its reuseport group, and how many that has; the view select has
//	            sockets alone
//	selected_by who chose a socket: "program", "hash" or "drop"; missing if that is not known
//	selected_socket, selected_cookie  number and cookie of the socket that the program chose
//	asked_socket, asked_errno  number that the program asked for in vain, and why
//	gso_size    bytes of payload in each segment of a packet that stands for several
//	gso_segs    how many segments it stands for
//	nonlinear   bytes at the packet's end that direct access (data to data_end) does not reach
//	checksum_partial  true if the checksum of TCP or UDP is not there yet: the field has
//	            only the sum of the pseudo header
//	hash        of the flow
//	queue       queue_mapping: one more than the number of the receive queue
//	netlink     protocol of the netlink socket, such as 0 for route, in the view kernel
//	connection  number of the unix stream, in the views user and sent where they are together
//	seq, ack    TCP's sequence numbers of the first byte of data, and of the next byte in the
//	            other direction, in the views user and sent where they are together
//	call        system call that returned the bytes, or took them
//	pid, tid    process and thread that made the call
//	errno       name of the error with which the call failed, such as "ECONNREFUSED"
//	buffer      size of the buffer that the call was given
//	cut_by_buffer  true if that had no room for the whole message
//	message_length  length of such a message, where it is known
//	msg_flags   names of the flags that recvmsg returned, such as ["MSG_TRUNC"]
//	gro_size    bytes of each of the datagrams that one call returned together, but for the
//	            last one, which may have less
//	ancillary   control messages that came with the message: for each of them name, level,
//	            type and length of its data, and for SCM_RIGHTS the number of descriptors
//	ancillary_rest  bytes of ancillary data besides those
//	sent_in     packets in which what was sent has left: pairs of the first and the last id
//	sent_in_omitted  ranges beyond those
//	sent_in_partly   true if it is not known of all other bytes where they are
//	not_left    bytes that had not left when the call returned
//	drop_reason  the kernel's name for why it has freed the packet (view drop)
//	drop_function  function of the kernel that has freed it, where that is known
//	comment     what there is to say about the packet
//	data        the observer's own bytes in hexadecimal, without any synthetic header
//	            or tag
//
// time, interface, layer, length, captured and data are in every object, the
// others where they are known. New fields may come; these keep their meaning.
type jsonWriter struct{ packetForm }

// jsonControl is an upper bound on the length of a control message.
const jsonControl = 192

func createJSON(w io.Writer, _ WriteOptions) (PacketWriter, error) {
	return &jsonWriter{packetForm{output{w: w, buf: make([]byte, 0, bufferSize), whole: wholeObjects}}}, nil
}

// wholeObjects returns the size and the number of the objects in b that end within the
// first n bytes.
func wholeObjects(b []byte, n int) (size, packets int) {
	size = wholeLines(b, n)
	return size, bytes.Count(b[:size], []byte{'\n'})
}

// wholeLines returns the size of the lines in b that end within the first n bytes.
func wholeLines(b []byte, n int) int { return bytes.LastIndexByte(b[:n], '\n') + 1 }

var layerNames = map[capture.Layer]string{
	capture.LayerLink:      "link",
	capture.LayerNetwork:   "network",
	capture.LayerTransport: "transport",
	capture.LayerMessage:   "message",
	capture.LayerForeign:   "foreign",
}

// WritePacket writes one line.
func (w *jsonWriter) WritePacket(p *capture.Packet) error {
	if p.Interface == nil {
		return errors.New("writing packet: no interface")
	}
	layer, ok := layerNames[p.Interface.Layer]
	if !ok {
		return fmt.Errorf("writing packet of %s: unknown layer %d", p.Interface.Name(), p.Interface.Layer)
	}
	// Escaping makes a character at most six times as long.
	comment := remark.Facts(p)
	const span = 2*20 + 4
	texts := len(p.Interface.Label) + len(p.Interface.Device) + 2*len(p.Interface.Kind) + len(p.Call) + len(comment) + len(p.Drop.Reason) + len(p.Drop.Location)
	if err := w.out.reserve(1024 + 2*len(p.Data) + 6*texts + jsonControl*len(p.Reception.Controls) + span*len(p.Receipt.Packets.Ranges)); err != nil {
		return err
	}
	b := append(w.out.buf, `{"time":"`...)
	b = time.Unix(0, p.Time).UTC().AppendFormat(b, "2006-01-02T15:04:05.000000000Z")
	b = appendJSONText(append(b, '"'), "interface", p.Interface.Name())
	b = appendJSONInterface(b, p.Interface, layer)
	b = appendJSONNumberIf(b, "packet_id", p.ID)
	switch p.Direction {
	case capture.Inbound:
		b = appendJSONText(b, "direction", "in")
	case capture.Outbound:
		b = appendJSONText(b, "direction", "out")
	}
	b = appendJSONNumber(b, "length", uint64(originalLength(p)))
	b = appendJSONNumber(b, "captured", uint64(len(p.Data)))
	b = appendJSONNumberIf(b, "drops", p.Drops)
	b = appendJSONHeaders(b, p)
	if isNetlink(p.Interface) {
		b = appendJSONNumber(b, "netlink", uint64(p.Netlink))
	}
	if isPlaced(p) {
		b = appendJSONNumberIf(b, "connection", p.Segment.Connection)
	}
	if isPlaced(p) && (p.Protocol == protocolTCP || p.Segment.Connection != 0) {
		b = appendJSONNumber(b, "seq", uint64(p.Segment.Seq))
		if p.Segment.Acks {
			b = appendJSONNumber(b, "ack", uint64(p.Segment.Ack))
		}
	}
	b = appendJSONMeta(b, &p.Meta)
	b = appendJSONSelection(b, &p.Selection)
	if p.Call != "" {
		b = appendJSONText(b, "call", p.Call)
	}
	b = appendJSONNumberIf(b, "pid", uint64(p.PID))
	b = appendJSONNumberIf(b, "tid", uint64(p.TID))
	b = appendJSONReception(b, p)
	b = appendJSONDeparture(b, &p.Receipt)
	if p.Drop.Reason != "" {
		b = appendJSONText(b, "drop_reason", p.Drop.Reason)
	}
	if p.Drop.Location != "" {
		b = appendJSONText(b, "drop_function", p.Drop.Location)
	}
	if comment != "" {
		b = appendJSONText(b, "comment", comment)
	}
	b = append(b, `,"data":"`...)
	for _, c := range p.Data {
		b = append(b, hexDigits[c>>4], hexDigits[c&0xf])
	}
	w.out.buf = append(b, "\"}\n"...)
	w.out.packets++
	return nil
}

// appendJSONInterface appends what is said of the interface that a packet is of, behind its name.
func appendJSONInterface(b []byte, i *capture.Interface, layer string) []byte {
	if i.View != 0 {
		b = appendJSONText(b, "kind", i.Kind)
		b = appendJSONText(b, "view", i.View.String())
		if i.Members > 0 && i.View != capture.ViewSelect {
			b = appendJSONNumber(b, "socket", uint64(i.Member))
			b = appendJSONNumber(b, "sockets", uint64(i.Members))
		}
	}
	if i.Device != "" {
		b = appendJSONText(b, "device", i.Device)
	}
	b = appendJSONText(b, "layer", layer)
	if i.Layer == capture.LayerForeign {
		b = appendJSONNumber(b, "link_type", uint64(i.LinkType))
	}
	return b
}

// appendJSONHeaders appends what the packet's headers say.
func appendJSONHeaders(b []byte, p *capture.Packet) []byte {
	h := headers.Parse(p)
	b = appendJSONNumberIf(b, "protocol", uint64(h.Protocol))
	b = appendJSONAddress(b, "src", h.Src)
	b = appendJSONAddress(b, "dst", h.Dst)
	b = appendJSONNumberIf(b, "src_port", uint64(h.Src.Port()))
	return appendJSONNumberIf(b, "dst_port", uint64(h.Dst.Port()))
}

// appendJSONMeta appends the metadata that the kernel kept. A VLAN tag with id 0 is a
// tag.
func appendJSONMeta(b []byte, m *capture.Meta) []byte {
	if m.Tagged() {
		b = appendJSONNumber(b, "vlan", uint64(m.VLAN()))
		b = appendJSONNumber(b, "vlan_tci", uint64(m.VLANTCI))
		b = appendJSONNumber(b, "vlan_proto", uint64(m.VLANProto))
	}
	b = appendJSONNumberIf(b, "mark", uint64(m.Mark))
	b = appendJSONNumberIf(b, "priority", uint64(m.Priority))
	b = appendJSONNumberIf(b, "gso_size", uint64(m.GSOSize))
	b = appendJSONNumberIf(b, "gso_segs", uint64(m.GSOSegs))
	b = appendJSONNumberIf(b, "nonlinear", uint64(m.NonLinear))
	if m.ChecksumPartial {
		b = append(appendJSONName(b, "checksum_partial"), "true"...)
	}
	b = appendJSONNumberIf(b, "hash", uint64(m.Hash))
	return appendJSONNumberIf(b, "queue", uint64(m.Queue))
}

// appendJSONSelection appends how the socket of a group was chosen.
func appendJSONSelection(b []byte, s *capture.Selection) []byte {
	if s.Sockets == 0 {
		return b
	}
	how := map[capture.Selector]string{
		capture.SelectorProgram: "program", capture.SelectorHash: "hash", capture.SelectorDrop: "drop",
	}[s.How]
	b = appendJSONNumber(b, "sockets", uint64(s.Sockets))
	if how != "" {
		b = appendJSONText(b, "selected_by", how)
	}
	if s.How == capture.SelectorProgram {
		b = appendJSONNumber(b, "selected_socket", uint64(s.Socket))
		b = appendJSONNumber(b, "selected_cookie", s.Cookie)
	}
	if s.Refused {
		b = appendJSONNumber(b, "asked_socket", uint64(s.Asked))
		if s.Errno != 0 {
			b = appendJSONText(b, "asked_errno", unix.ErrnoName(s.Errno))
		}
	}
	return b
}

// appendJSONDeparture appends where the bytes of a call are.
func appendJSONDeparture(b []byte, r *capture.Receipt) []byte {
	if !r.Packets.Empty() {
		b = append(appendJSONName(b, "sent_in"), '[')
		for i, span := range r.Packets.Ranges {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendUint(append(b, '['), span[0], 10)
			b = append(strconv.AppendUint(append(b, ','), span[1], 10), ']')
		}
		b = append(b, ']')
		b = appendJSONNumberIf(b, "sent_in_omitted", uint64(r.Packets.More))
		if r.Partly {
			b = append(appendJSONName(b, "sent_in_partly"), "true"...)
		}
	}
	return appendJSONNumberIf(b, "not_left", uint64(r.Waiting))
}

func appendJSONAddress(b []byte, name string, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return b
	}
	return appendJSONText(b, name, a.Addr().String())
}

func appendJSONNumberIf(b []byte, name string, value uint64) []byte {
	if value == 0 {
		return b
	}
	return appendJSONNumber(b, name, value)
}

func appendJSONNumber(b []byte, name string, value uint64) []byte {
	return strconv.AppendUint(appendJSONName(b, name), value, 10)
}

func appendJSONName(b []byte, name string) []byte {
	return append(append(append(b, `,"`...), name...), `":`...)
}

func appendJSONText(b []byte, name, value string) []byte {
	b = append(appendJSONName(b, name), '"')
	for _, r := range value {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		default:
			b = terminal.AppendJSONRune(b, r)
		}
	}
	return append(b, '"')
}
