package convert

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert/internal/headers"
	"github.com/ebpfdump/ebpfdump/internal/header"
	"github.com/ebpfdump/ebpfdump/internal/remark"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// LineOptions configure a LineWriter.
type LineOptions struct {
	// Hex prints each packet's bytes beneath its line. The default is not to.
	Hex bool
	// Columns is the width to fill, 80 by default.
	Columns int
	// Terminal returns how many columns the terminal has, which may change. Then no line is wider,
	// but for addresses that have no room: a comment which does not fit stands below, in lines of
	// its own, and an ellipsis says where the payload is cut. Default, and where it is 0: a packet is one line, with all of its comment.
	Terminal func() int
	// Colours tells views and comments apart, for a terminal (package terminal). The default is
	// none.
	Colours bool
	// Location is the time zone of the times, time.Local by default.
	Location *time.Location
}

// LineWriter prints a line for each packet, for people at a terminal:
//
//	12:00:00.123456789 tcp:kernel #4 10.0.0.1:52638 > 10.0.0.2:16962 [P.] 43 01234
//
// These are the time, the interface's name, the packet's id, by which comments name it, the addresses, the TCP flags (or the
// protocol, or the system call that returned the bytes), the packet's length in bytes,
// and as much of the payload as fits: text as it is, other bytes in hexadecimal after 0x.
// A comment follows after a semicolon, in full even if that makes the line longer, unless it is
// for a terminal. The payload gives way to it: the bytes are in the hexadecimal dump, the comment
// is nowhere else.
//
// No byte of a packet is printed as a control character. Each packet is one Write, so
// that lines are never torn.
type LineWriter struct {
	w       io.Writer
	options LineOptions
	// nameWidth is the longest interface name so far, in columns.
	nameWidth int
	// idWidth is the longest id so far, with its sign; 0 if there was none.
	idWidth int
	buf     []byte
}

var _ capture.Sink = (*LineWriter)(nil)

// NewLineWriter returns a LineWriter that prints to w.
func NewLineWriter(w io.Writer, options LineOptions) *LineWriter {
	if options.Columns == 0 {
		options.Columns = 80
	}
	if options.Location == nil {
		options.Location = time.Local
	}
	return &LineWriter{w: w, options: options}
}

// WritePacket prints one packet. It does not keep p.
func (w *LineWriter) WritePacket(p *capture.Packet) error {
	if p.Interface == nil {
		return errors.New("printing packet: no interface")
	}
	h := headers.Parse(p)
	b := time.Unix(0, p.Time).In(w.options.Location).AppendFormat(w.buf[:0], "15:04:05.000000000")
	b = append(b, ' ')
	named := len(b)
	b = w.appendName(b, p.Interface)
	nameEnd := len(b)
	b = w.appendID(b, p.ID)
	b = appendAddresses(b, h.Src, h.Dst)
	b = appendProtocol(b, p, &h)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(originalLength(p)), 10)

	comment := remark.Facts(p)
	if remark.HasMeta(&p.Meta) {
		comment = string(remark.AppendComment(nil, comment, &p.Meta))
	}
	b = w.appendRest(b, h.Payload, terminal.Plain(comment), commentColour(p))
	if colour := viewColours[p.Interface.View]; w.options.Colours && colour != "" {
		b = slices.Insert(b, nameEnd, []byte(terminal.Reset)...)
		b = slices.Insert(b, named, []byte(colour)...)
	}
	b = append(b, '\n')
	if w.options.Hex {
		b = appendHexDump(b, p.Data)
	}
	w.buf = b
	if _, err := w.w.Write(b); err != nil {
		return fmt.Errorf("printing packet: %w", err)
	}
	return nil
}

// viewColours tell what the kernel saw from what userspace got.
var viewColours = map[capture.View]string{
	capture.ViewKernel: terminal.Green, capture.ViewUser: terminal.Cyan, capture.ViewSent: terminal.Magenta,
	capture.ViewDrop: terminal.Red,
}

// commentColour is that of a packet's comment.
func commentColour(p *capture.Packet) string {
	if p.Verdict.Dropped || p.Drop.Reason != "" {
		return terminal.Red
	}
	return terminal.Yellow
}

// appendRest appends the payload and the comment to the head of a line.
func (w *LineWriter) appendRest(b, payload []byte, comment, colour string) []byte {
	columns := w.options.Columns
	preview, below := appendPreview, false
	if w.options.Terminal != nil {
		if wide := w.options.Terminal(); wide > 0 {
			columns, preview = wide, appendCutPreview
			below = utf8.RuneCount(b)+len(separator)+utf8.RuneCountInString(comment) > columns
		}
	}
	room := columns - utf8.RuneCount(b) - len(" ")
	if comment != "" && !below {
		room -= len(separator) + utf8.RuneCountInString(comment)
	}
	b = preview(b, payload, room)
	if comment == "" {
		return b
	}
	if !w.options.Colours {
		colour = ""
	}
	if !below {
		return appendColoured(b, separator+comment, colour)
	}
	indent := min(commentIndent, max(columns-shortComment, 0))
	room = max(columns-indent-len(separator), 1)
	for i, line := range terminal.WrapHard(comment, room, room) {
		b = append(b, '\n')
		for range indent {
			b = append(b, ' ')
		}
		begin := separator
		if i > 0 {
			begin = "   "
		}
		b = appendColoured(b, begin+line, colour)
	}
	return b
}

const (
	// separator stands before a comment.
	separator = " ; "
	// commentIndent is how far a comment below is set in, so that the times stand alone, where
	// shortComment columns are left for it.
	commentIndent, shortComment = 18, 40
)

func appendColoured(b []byte, text, colour string) []byte {
	if colour == "" {
		return append(b, text...)
	}
	return append(append(append(b, colour...), text...), terminal.Reset...)
}

// appendID appends the packet's id, as wide as the widest so far.
func (w *LineWriter) appendID(b []byte, id uint64) []byte {
	start := len(b)
	if id != 0 {
		b = strconv.AppendUint(append(b, " #"...), id, 10)
	}
	width := len(b) - start
	w.idWidth = max(w.idWidth, width)
	for ; width < w.idWidth; width++ {
		b = append(b, ' ')
	}
	return b
}

// appendName appends the interface's name, padded to the widest so far.
func (w *LineWriter) appendName(b []byte, i *capture.Interface) []byte {
	start := len(b)
	b = terminal.AppendPlain(b, i.Name())
	width := utf8.RuneCount(b[start:])
	w.nameWidth = max(w.nameWidth, width)
	for ; width < w.nameWidth; width++ {
		b = append(b, ' ')
	}
	return b
}

// appendAddresses appends both addresses, or nothing if neither is known.
func appendAddresses(b []byte, src, dst netip.AddrPort) []byte {
	if !src.IsValid() && !dst.IsValid() {
		return b
	}
	b = appendAddress(append(b, ' '), src)
	return appendAddress(append(b, " > "...), dst)
}

func appendAddress(b []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return append(b, '?')
	}
	if a.Addr().Zone() != "" {
		// A zone is the name of a network interface, which may contain almost any byte.
		s := a.String()
		if a.Port() == 0 {
			s = a.Addr().String()
		}
		return terminal.AppendPlain(b, s)
	}
	if a.Port() == 0 {
		return a.Addr().AppendTo(b)
	}
	return a.AppendTo(b)
}

// appendProtocol appends the TCP flags as tcpdump prints them, or the name of the
// protocol.
func appendProtocol(b []byte, p *capture.Packet, h *headers.Headers) []byte {
	switch {
	case h.TCP:
		return header.AppendTCPFlags(append(b, ' '), h.Flags)
	case h.EtherType != 0:
		return fmt.Appendf(b, " ether 0x%04x", h.EtherType)
	case h.Protocol != 0:
		return appendProtocolName(append(b, ' '), h.Protocol)
	case p.Call != "":
		return terminal.AppendPlain(append(b, ' '), p.Call)
	}
	return b
}

func appendProtocolName(b []byte, protocol uint8) []byte {
	switch protocol {
	case protocolICMP:
		return append(b, "icmp"...)
	case protocolTCP:
		return append(b, "tcp"...)
	case protocolUDP:
		return append(b, "udp"...)
	case protocolICMPv6:
		return append(b, "icmp6"...)
	}
	return strconv.AppendUint(append(b, "proto "...), uint64(protocol), 10)
}

const hexDigits = "0123456789abcdef"

// fewestColumns are those in which something of use is to be seen of a payload.
const fewestColumns = 4

// appendPreview appends the first bytes of a payload in at most room columns
// after a space.
func appendPreview(b, payload []byte, room int) []byte {
	if room < fewestColumns || len(payload) == 0 {
		return b
	}
	return appendBytes(append(b, ' '), payload, room)
}

// ellipsis says that there is more of a payload: dots stand for its bytes.
const ellipsis = "…"

// appendCutPreview is appendPreview with an ellipsis, in the last of the columns, if the payload does
// not fit.
func appendCutPreview(b, payload []byte, room int) []byte {
	if room <= 0 || len(payload) == 0 {
		return b
	}
	b = append(b, ' ')
	fits := len(payload) <= room
	if fits && !isText(payload) {
		fits = len("0x")+2*len(payload) <= room
	}
	switch {
	case fits:
		return appendBytes(b, payload, room)
	case room >= fewestColumns:
		b = appendBytes(b, payload, room-1)
	}
	return append(b, ellipsis...)
}

// appendBytes appends the first bytes of a payload in at most room columns.
func appendBytes(b, payload []byte, room int) []byte {
	shown := payload[:min(len(payload), room)]
	if isText(shown) {
		for _, c := range shown {
			b = append(b, terminal.ASCII(c))
		}
		return b
	}
	if shown = payload[:min(len(payload), (room-2)/2)]; len(shown) > 0 {
		b = append(b, "0x"...)
	}
	for _, c := range shown {
		b = append(b, hexDigits[c>>4], hexDigits[c&0xf])
	}
	return b
}

// isText tells whether bytes are more readable as characters than as numbers: at least
// three quarters are printable or white space.
func isText(b []byte) bool {
	text := 0
	for _, c := range b {
		if terminal.ASCII(c) == c || c == '\n' || c == '\r' || c == '\t' {
			text++
		}
	}
	return text*4 >= len(b)*3
}

// appendHexDump appends lines of 16 bytes in 76 columns: offset, hexadecimal, ASCII.
func appendHexDump(b, data []byte) []byte {
	const width = 3*16 + 1
	for offset := 0; offset < len(data); offset += 16 {
		row := data[offset:min(offset+16, len(data))]
		b = fmt.Appendf(b, "  %04x ", offset)
		start := len(b)
		for i, c := range row {
			if i == 8 {
				b = append(b, ' ')
			}
			b = append(b, ' ', hexDigits[c>>4], hexDigits[c&0xf])
		}
		for len(b) < start+width {
			b = append(b, ' ')
		}
		b = append(b, "  "...)
		for _, c := range row {
			b = append(b, terminal.ASCII(c))
		}
		b = append(b, '\n')
	}
	return b
}
