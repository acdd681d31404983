package convert

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert/internal/window"
	"github.com/ebpfdump/ebpfdump/internal/remark"
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

// pcapngReader reads pcapng (draft-ietf-opsawg-pcapng) of any writer, in either byte
// order, with any number of sections. It never allocates by a length that a file claims:
// whatever it parses has to fit into the window of the input.
type pcapngReader struct {
	in    *window.Window
	order binary.ByteOrder
	// section is the description of the first section, and sections the number of those
	// that have begun.
	section  *fileSection
	sections int
	// interfaces of the current section, indexed by id.
	interfaces []*fileInterface
	// described are the interfaces of all sections, each once.
	described []*capture.Interface
	// numbers are the places of interfaces among those.
	numbers    map[*capture.Interface]int
	known      interfaceSet
	statistics []capture.Statistics
	item       Item
	packet     capture.Packet
	block      block
	strip      stripper
	used       int // size of the item's block
	packets    uint64
	err        error
	cut        CutOff
	options    ReadOptions
	large      []byte // a block larger than the window
	scratch    []byte
	controls   [capture.ControlsMax + 1]capture.Control // memory for those of the packet
}

func isPcapng(head []byte) bool {
	return len(head) >= 12 && binary.BigEndian.Uint32(head) == blockSection && byteOrderOf(head[8:]) != nil
}

// byteOrderOf reads the byte-order magic of a section, and returns nil if it is invalid.
func byteOrderOf(b []byte) binary.ByteOrder {
	switch uint32(byteOrderMagic) {
	case binary.LittleEndian.Uint32(b):
		return binary.LittleEndian
	case binary.BigEndian.Uint32(b):
		return binary.BigEndian
	}
	return nil
}

func openPcapng(in *window.Window, o ReadOptions) (Reader, error) {
	return &pcapngReader{in: in, options: o}, nil
}

// Next returns the next packet.
func (r *pcapngReader) Next() (*capture.Packet, error) {
	for {
		item, err := r.next(false)
		if err != nil || item.Packet != nil {
			return item.Packet, err
		}
	}
}

// NextItem returns the next item, a packet or a block of another type.
func (r *pcapngReader) NextItem() (*Item, error) { return r.next(true) }

// next returns the next item. Blocks that this project does not interpret are skipped
// unless all is set.
func (r *pcapngReader) next(all bool) (*Item, error) {
	r.in.Use(r.used)
	r.used = 0
	for r.err == nil {
		r.item, r.block = Item{}, block{order: r.order}
		at := r.in.Offset()
		err := r.read(all)
		if err == nil && r.item.block != nil {
			return &r.item, nil
		}
		if err != nil {
			r.err = r.end(at, err)
		}
	}
	return &Item{}, r.err
}

// end turns an error at an offset into the one that the file ends with.
func (r *pcapngReader) end(at int64, err error) error {
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	failure := &InputError{Name: r.options.Name, Offset: at, Err: err}
	if !errors.Is(err, window.ErrCutOff) || r.section == nil {
		return failure
	}
	r.cut, err = r.options.cutOff(failure, r.in, r.packets)
	return err
}

// read reads one block, which becomes the reader's item if it is one.
func (r *pcapngReader) read(all bool) error {
	head, err := r.in.Peek(8)
	if len(head) == 0 && errors.Is(err, io.EOF) {
		return io.EOF
	}
	if err != nil {
		return cutOff(err)
	}
	if binary.BigEndian.Uint32(head) == blockSection {
		return r.sectionBlock()
	}
	if r.order == nil {
		return errors.New("a section header should stand here")
	}
	r.block.kind = r.order.Uint32(head)
	length := r.order.Uint32(head[4:])
	if length < blockFrame || length%4 != 0 {
		return fmt.Errorf("a block of %d bytes: there is none of that length", length)
	}
	switch r.block.kind {
	case blockInterface, blockPacket, blockSimplePacket, blockStatistics, blockEnhancedPacket:
		return r.knownBlock(length)
	}
	return r.otherBlock(length, all)
}

// knownBlock reads a block that this project interprets.
func (r *pcapngReader) knownBlock(length uint32) error {
	if length > window.Size {
		return fmt.Errorf("a block of %d bytes: more than %d are not read", length, window.Size)
	}
	body, err := r.body(int(length))
	if err != nil {
		return err
	}
	switch r.block.kind {
	case blockInterface:
		r.block.iface, err = r.interfaceBlock(body)
	case blockStatistics:
		err = r.statisticsBlock(body)
	default:
		if err = r.packetBlock(body); err == nil {
			r.item.Packet = &r.packet
			r.packets++
		}
	}
	if err != nil {
		return err
	}
	r.item.block = &r.block
	r.used = int(length)
	return nil
}

// otherBlock reads a block that this project does not interpret, or skips it.
func (r *pcapngReader) otherBlock(length uint32, all bool) error {
	if all {
		r.item.block = &r.block
	}
	if _, copied := foreignBlocks[r.block.kind]; !copied || !all || length > largestBlock {
		return r.skip(int64(length))
	}
	body, err := r.body(int(length))
	if err == nil && len(body) > window.Size-blockFrame {
		r.block.body = body
		return nil // consumed already
	}
	r.block.body, r.used = body, int(length)
	return err
}

// body returns the body of a block of that length.
func (r *pcapngReader) body(length int) ([]byte, error) {
	var b []byte
	var err error
	if length > window.Size {
		b, err = r.largeBlock(length)
	} else {
		b, err = r.in.Peek(length)
	}
	if err != nil {
		return nil, cutOff(err)
	}
	if again := r.order.Uint32(b[length-4:]); again != uint32(length) {
		return nil, fmt.Errorf("a block of %d bytes ends with the length %d", length, again)
	}
	return b[8 : length-4], nil
}

// largeBlock reads a block larger than the window. Its memory grows with the bytes that
// arrive, not with the length that the block claims.
func (r *pcapngReader) largeBlock(length int) ([]byte, error) {
	r.large = r.large[:0]
	for length > len(r.large) {
		piece, err := r.in.Peek(min(length-len(r.large), window.ReadSize))
		r.large = append(r.large, piece...)
		r.in.Use(len(piece))
		if err != nil {
			return nil, err
		}
	}
	return r.large, nil
}

// skip skips a block of any size.
func (r *pcapngReader) skip(length int64) error {
	err := r.in.Skip(length)
	if errors.Is(err, io.EOF) && length > largestBlock {
		return fmt.Errorf("a block of %d bytes: the file has not as many", length)
	}
	return cutOff(err)
}

// cutOff turns io.EOF into an error that says that the file is truncated.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return window.ErrCutOff
	}
	return err
}

// sectionBlock begins a section (section 4.1 of the draft).
func (r *pcapngReader) sectionBlock() error {
	head, err := r.in.Peek(12)
	if err != nil {
		return cutOff(err)
	}
	if r.order = byteOrderOf(head[8:]); r.order == nil {
		return fmt.Errorf("a section's byte order is %#x", head[8:12])
	}
	length := r.order.Uint32(head[4:])
	if length < blockFrame+16 || length%4 != 0 || length > window.Size {
		return fmt.Errorf("a section header of %d bytes", length)
	}
	body, err := r.body(int(length))
	if err != nil {
		return err
	}
	if major := r.order.Uint16(body[4:]); major != 1 {
		return fmt.Errorf("version %d of pcapng is unknown", major)
	}
	described := optionsOf(body[16:], r.order)
	r.sections++
	r.interfaces = nil
	if r.section == nil {
		described.bytes = bytes.Clone(described.bytes)
		r.section = readSection(described)
		r.in.Use(int(length))
		return nil
	}
	r.used = int(length)
	r.block = block{kind: blockSection, order: r.order, options: described.bytes}
	r.item.block = &r.block
	return nil
}

// optionText returns an option's value as valid UTF-8. Some writers terminate it with a
// zero.
func optionText(value []byte) string {
	return strings.ToValidUTF8(strings.TrimRight(string(value), "\x00"), "\ufffd")
}

// packetBlock reads a packet block of any of the three types (sections 4.3, 4.4 and
// appendix A of the draft).
func (r *pcapngReader) packetBlock(body []byte) error {
	blockType := r.block.kind
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
	r.block.iface, r.block.ticks, r.block.time = i, ticks, timeNone
	if blockType != blockSimplePacket {
		p.Time, r.block.time = i.clock.nanoseconds(ticks)
		r.block.options = body[min((captured+3)&^3, uint64(len(body))):]
	}
	r.block.drops = p.Drops
	p.Data, p.Len = body[:captured:captured], int(max(original, captured))
	r.packetOptions(p, r.block.options)
	parseMeta(p, i)
	r.strip.packet(p, i)
	if p.Interface.View != capture.ViewUser {
		p.Reception = capture.Reception{} // somebody else's option
	}
	if p.Comment != "" {
		remark.CutFacts(p) // after the call and the length are known, on which it depends
	}
	return nil
}

func (r *pcapngReader) packetOptions(p *capture.Packet, b []byte) {
	var comment []byte
	comments := 0
	o := optionsOf(b, r.order)
	for code, value, ok := o.next(); ok; code, value, ok = o.next() {
		switch {
		case code == optionComment:
			comment = value
			comments++
		case code == packetFlags && len(value) == 4:
			parseFlags(p, r.order.Uint32(value))
		case code == packetDropCount && len(value) == 8:
			p.Drops = r.order.Uint64(value)
		case code == packetID && len(value) == 8:
			p.ID = r.order.Uint64(value)
		case code == packetHash && isFlowHash(value):
			p.Meta.Hash = binary.BigEndian.Uint32(value[1:])
		case code == packetQueue && len(value) == 4:
			p.Meta.Queue = r.order.Uint32(value) + 1 // see parseMeta
		case code == packetProcess && len(value) == 8:
			p.PID, p.TID = r.order.Uint32(value), r.order.Uint32(value[4:])
		case code == customBytes && isReception(value, r.order):
			p.Reception = parseReception(value, r.controls[:0])
		case code == customBytes && isNonLinear(value, r.order):
			p.Meta.NonLinear = binary.BigEndian.Uint32(value[8:])
		}
	}
	switch comments {
	case 0:
	case 1:
		p.Comment = optionText(comment)
	default:
		p.Comment = optionsOf(b, r.order).comments()
	}
}

// statisticsBlock reads an interface statistics block (section 4.6 of the draft).
func (r *pcapngReader) statisticsBlock(body []byte) error {
	if len(body) < 12 {
		return fmt.Errorf("a statistics block of %d bytes", len(body)+blockFrame)
	}
	id := r.order.Uint32(body)
	if uint64(id) >= uint64(len(r.interfaces)) {
		return fmt.Errorf("statistics of interface %d of %d", id, len(r.interfaces))
	}
	i := r.interfaces[id]
	r.block.iface, r.block.options = i, body[12:]
	r.block.ticks = uint64(r.order.Uint32(body[4:]))<<32 | uint64(r.order.Uint32(body[8:]))
	s := capture.Statistics{Interface: i.own}
	o := optionsOf(body[12:], r.order)
	for code, value, ok := o.next(); ok; code, value, ok = o.next() {
		if code == optionComment {
			s.Comment = optionText(value)
		}
		if len(value) != 8 {
			continue
		}
		n := r.order.Uint64(value)
		switch code {
		case statisticsStart, statisticsEnd:
			ticks := uint64(r.order.Uint32(value))<<32 | uint64(r.order.Uint32(value[4:]))
			if code == statisticsStart {
				s.Start, _ = i.clock.nanoseconds(ticks)
			} else {
				s.End, _ = i.clock.nanoseconds(ticks)
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
	if rest := s.Delivered + s.Dropped; rest < s.Received {
		s.Unwanted = s.Received - rest
	}
	// A file may have statistics every second; the last ones count.
	if i.counted {
		r.statistics[i.statistics] = s
		return nil
	}
	i.statistics, i.counted = len(r.statistics), true
	r.statistics = append(r.statistics, s)
	return nil
}
