package convert

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ebpfdump/ebpfdump/capture"
)

// More block types of draft-ietf-opsawg-pcapng, sections 4.1, 4.4 and 4.5
// and appendix A.
const (
	blockSection      = 0x0a0d0d0a
	blockPacket       = 2 // obsolete, but still in old files
	blockSimplePacket = 3

	byteOrderMagic = 0x1a2b3c4d

	sectionHardware    = 2
	sectionOS          = 3
	sectionApplication = 4

	interfaceOffset = 14
)

// pcapngReader reads pcapng (draft-ietf-opsawg-pcapng) of anybody, of either
// byte order, with any number of sections. It never allocates what a file
// claims: whatever it looks at has to fit into the window of the input.
type pcapngReader struct {
	in    *input
	name  string
	order binary.ByteOrder
	// section is the first one's description.
	section Section
	// interfaces of the current section; the index is the id.
	interfaces []*fileInterface
	known      interfaceSet
	statistics []capture.Statistics
	packet     capture.Packet
	strip      stripper
	used       int // bytes of the block that packet.Data lies in
	err        error
}

func isPcapng(head []byte) bool {
	return len(head) >= 12 && binary.BigEndian.Uint32(head) == blockSection && byteOrderOf(head[8:]) != nil
}

// byteOrderOf reads the magic of a section, nil if it is none.
func byteOrderOf(b []byte) binary.ByteOrder {
	switch uint32(byteOrderMagic) {
	case binary.LittleEndian.Uint32(b):
		return binary.LittleEndian
	case binary.BigEndian.Uint32(b):
		return binary.BigEndian
	}
	return nil
}

func openPcapng(in *input, o ReadOptions) (Reader, error) {
	return &pcapngReader{in: in, name: o.Name}, nil
}

// Next returns the next packet.
func (r *pcapngReader) Next() (*capture.Packet, error) {
	r.in.use(r.used)
	r.used = 0
	for r.err == nil {
		found, err := r.block()
		if err == nil && found {
			return &r.packet, nil
		}
		if errors.Is(err, io.EOF) {
			r.err = io.EOF
		} else if err != nil {
			r.err = &InputError{Name: r.name, Offset: r.in.offset, Err: err}
		}
	}
	return nil, r.err
}

// block reads one block, and tells whether that was a packet.
func (r *pcapngReader) block() (packet bool, err error) {
	head, err := r.in.peek(8)
	if len(head) == 0 && errors.Is(err, io.EOF) {
		return false, io.EOF
	}
	if err != nil {
		return false, cutOff(err)
	}
	if binary.BigEndian.Uint32(head) == blockSection {
		return false, r.sectionBlock()
	}
	if r.order == nil {
		return false, errors.New("a section header should stand here")
	}
	blockType, length := r.order.Uint32(head), r.order.Uint32(head[4:])
	if length < blockFrame || length%4 != 0 {
		return false, fmt.Errorf("a block of %d bytes: there is none of that length", length)
	}
	switch blockType {
	case blockInterface, blockPacket, blockSimplePacket, blockStatistics, blockEnhancedPacket:
	default:
		return false, r.skip(int64(length))
	}
	if length > inputSize {
		return false, fmt.Errorf("a block of %d bytes: more than %d are not read", length, inputSize)
	}
	body, err := r.body(int(length))
	if err != nil {
		return false, err
	}
	switch blockType {
	case blockInterface:
		err = r.interfaceBlock(body)
	case blockStatistics:
		err = r.statisticsBlock(body)
	default:
		if err := r.packetBlock(blockType, body); err != nil {
			return false, err
		}
		r.used = int(length)
		return true, nil
	}
	if err == nil {
		r.in.use(int(length))
	}
	return false, err
}

// body returns what is inside a block of a length.
func (r *pcapngReader) body(length int) ([]byte, error) {
	b, err := r.in.peek(length)
	if err != nil {
		return nil, cutOff(err)
	}
	if again := r.order.Uint32(b[length-4:]); again != uint32(length) {
		return nil, fmt.Errorf("a block of %d bytes ends with the length %d", length, again)
	}
	return b[8 : length-4], nil
}

// skip passes over a block that is not understood, of any size.
func (r *pcapngReader) skip(length int64) error {
	at := r.in.offset
	if err := r.in.skip(length); err != nil {
		r.in.offset = at // of the block that is not whole
		return cutOff(err)
	}
	return nil
}

// cutOff turns the end of the file into an error that says so.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return errCutOff
	}
	return err
}

// sectionBlock begins a section (section 4.1 of the draft).
func (r *pcapngReader) sectionBlock() error {
	head, err := r.in.peek(12)
	if err != nil {
		return cutOff(err)
	}
	if r.order = byteOrderOf(head[8:]); r.order == nil {
		return fmt.Errorf("a section's byte order is %#x", head[8:12])
	}
	length := r.order.Uint32(head[4:])
	if length < blockFrame+16 || length%4 != 0 || length > inputSize {
		return fmt.Errorf("a section header of %d bytes", length)
	}
	body, err := r.body(int(length))
	if err != nil {
		return err
	}
	if major := r.order.Uint16(body[4:]); major != 1 {
		return fmt.Errorf("version %d of pcapng is unknown", major)
	}
	if r.section == (Section{}) {
		r.section = r.describe(body[16:])
	}
	r.interfaces = nil
	r.in.use(int(length))
	return nil
}

func (r *pcapngReader) describe(options []byte) (s Section) {
	for code, value := range r.options(options) {
		switch code {
		case sectionHardware:
			s.Hardware = text(value)
		case sectionOS:
			s.OS = text(value)
		case sectionApplication:
			s.Application = text(value)
		case optionComment:
			s.Comment = text(value)
		}
	}
	return s
}

// options goes through the options of a block. What is not whole ends them: no
// packet is lost for a damaged option.
func (r *pcapngReader) options(b []byte) func(yield func(code uint16, value []byte) bool) {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= 4 {
			code, length := r.order.Uint16(b), int(r.order.Uint16(b[2:]))
			padded := 4 + (length+3)&^3
			if code == optionEnd || padded > len(b) || !yield(code, b[4:4+length]) {
				return
			}
			b = b[padded:]
		}
	}
}

// text is an option's value as a string of valid UTF-8. Some writers put a zero behind it.
func text(value []byte) string {
	return strings.ToValidUTF8(strings.TrimRight(string(value), "\x00"), "\ufffd")
}

// packetBlock reads the head and the options of a packet block, of which there
// are three kinds (sections 4.3, 4.4 and appendix A of the draft).
func (r *pcapngReader) packetBlock(blockType uint32, body []byte) error {
	p := &r.packet
	*p = capture.Packet{}
	var id, captured, original, ticks uint64
	switch {
	case blockType == blockSimplePacket && len(body) >= 4:
		original = uint64(r.order.Uint32(body))
		body = body[4:]
		captured = min(original, uint64(len(body)))
		if len(r.interfaces) > 0 && r.interfaces[0].snaplen > 0 {
			captured = min(captured, uint64(r.interfaces[0].snaplen))
		}
	case blockType != blockSimplePacket && len(body) >= 20:
		id = uint64(r.order.Uint32(body))
		if blockType == blockPacket {
			id = uint64(r.order.Uint16(body))
			if drops := r.order.Uint16(body[2:]); drops != 0xffff { // unknown
				p.Drops = uint64(drops)
			}
		}
		ticks = uint64(r.order.Uint32(body[4:]))<<32 | uint64(r.order.Uint32(body[8:]))
		captured, original = uint64(r.order.Uint32(body[12:])), uint64(r.order.Uint32(body[16:]))
		body = body[20:]
	default:
		return fmt.Errorf("a packet block of %d bytes", len(body)+blockFrame)
	}
	if id >= uint64(len(r.interfaces)) {
		return fmt.Errorf("a packet of interface %d of %d", id, len(r.interfaces))
	}
	if captured > uint64(len(body)) {
		return fmt.Errorf("a packet of %d bytes in a block that has %d", captured, len(body))
	}
	i := r.interfaces[id]
	if blockType != blockSimplePacket {
		p.Time = i.clock.nanoseconds(ticks)
	}
	p.Data, p.Len = body[:captured:captured], int(max(original, captured))
	r.packetOptions(p, body[min((captured+3)&^3, uint64(len(body))):])
	r.strip.packet(p, i)
	return nil
}

func (r *pcapngReader) packetOptions(p *capture.Packet, options []byte) {
	for code, value := range r.options(options) {
		switch {
		case code == packetFlags && len(value) == 4:
			switch r.order.Uint32(value) & 3 {
			case 1:
				p.Direction = capture.Inbound
			case 2:
				p.Direction = capture.Outbound
			}
		case code == packetDropCount && len(value) == 8:
			p.Drops = r.order.Uint64(value)
		case code == packetID && len(value) == 8:
			p.ID = r.order.Uint64(value)
		case code == packetProcess && len(value) == 8:
			p.PID, p.TID = r.order.Uint32(value), r.order.Uint32(value[4:])
		case code == optionComment && p.Comment == "":
			p.Comment = text(value)
		case code == optionComment:
			p.Comment += "\n" + text(value)
		}
	}
}

// statisticsBlock reads the ledger of an interface (section 4.6 of the draft).
func (r *pcapngReader) statisticsBlock(body []byte) error {
	if len(body) < 12 {
		return fmt.Errorf("a statistics block of %d bytes", len(body)+blockFrame)
	}
	id := r.order.Uint32(body)
	if uint64(id) >= uint64(len(r.interfaces)) {
		return fmt.Errorf("statistics of interface %d of %d", id, len(r.interfaces))
	}
	i := r.interfaces[id]
	s := capture.Statistics{Interface: i.own}
	for code, value := range r.options(body[12:]) {
		if code == optionComment {
			s.Comment = text(value)
		}
		if len(value) != 8 {
			continue
		}
		n := r.order.Uint64(value)
		switch code {
		case statisticsStart, statisticsEnd:
			ticks := uint64(r.order.Uint32(value))<<32 | uint64(r.order.Uint32(value[4:]))
			if code == statisticsStart {
				s.Start = i.clock.nanoseconds(ticks)
			} else {
				s.End = i.clock.nanoseconds(ticks)
			}
		case statisticsReceived:
			s.Received = n
		case statisticsDropped:
			s.Dropped = n
		case statisticsAccepted:
			s.Accepted = n
		case statisticsOSDropped:
			s.OSDropped = n
		case statisticsDelivered:
			s.Delivered = n
		}
	}
	// A file may have a ledger a second; the last one counts.
	for n := range r.statistics {
		if r.statistics[n].Interface == s.Interface {
			r.statistics[n] = s
			return nil
		}
	}
	r.statistics = append(r.statistics, s)
	return nil
}
