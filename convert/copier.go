package convert

import (
	"io"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/remark"
)

// copier writes the items of files in some format, and counts what the format has no room
// for. From pcapng to pcapng that is little: what other programs wrote is kept without
// being understood.
type copier struct {
	PacketWriter
	format *Format
	items  itemWriter // the PacketWriter, nil for a format that has only packets
	left   omissionCounts
}

// itemWriter is a PacketWriter that has room for blocks besides the packets.
type itemWriter interface {
	PacketWriter
	// writeItem writes an item, and counts what it leaves out.
	writeItem(item *Item, left *omissionCounts) error
}

// newCopier starts a copy of o.From. As with Create, the first bytes may be buffered.
func newCopier(f *Format, w io.Writer, o WriteOptions) (*copier, error) {
	c := &copier{format: f}
	var err error
	if f.copies != nil {
		c.items, err = f.copies(w, o, &c.left)
		c.PacketWriter = c.items
		return c, err
	}
	for _, s := range o.sections() {
		if len(s.options.bytes) > 0 {
			c.left.leave(sectionHeaders)
		}
	}
	c.PacketWriter, err = f.Create(w, o)
	return c, err
}

// sections returns the section headers of the files being copied.
func (o *WriteOptions) sections() (all []*fileSection) {
	for _, s := range o.From {
		if r, ok := s.Reader.(*pcapngReader); ok && r.section != nil {
			all = append(all, r.section)
		}
	}
	return all
}

// writeItem writes an item, or counts it.
func (c *copier) writeItem(item *Item) error {
	if item.Packet != nil && c.format.leavesOut(item.Packet) {
		c.left.leave(headlessPackets)
		return nil
	}
	if item.block != nil && item.block.time == timeNone && item.Packet != nil {
		c.left.leave(timelessPackets)
	}
	switch {
	case item.Packet == nil:
	case item.cut:
		c.left.leave(longPackets)
	case c.format.keeps&(1<<longPackets) != 0 || !c.cuts(item.Packet):
	case limitOf(item.Packet.Interface) == snaplen:
		c.left.leave(longPackets)
	default:
		c.left.leave(longestPackets)
	}
	if c.items != nil {
		return c.items.writeItem(item, &c.left)
	}
	if item.Packet == nil {
		c.leaveBlock(item.block)
		return nil
	}
	if err := c.WritePacket(item.Packet); err != nil {
		return err
	}
	c.leaveOfPacket(item.Packet)
	c.leaveOfTime(item)
	if item.block != nil {
		c.leaveOptions(item.Packet, item.block)
	}
	return nil
}

// leftOut lists what the copy lacks or has changed.
func (c *copier) leftOut() []Omission { return c.left.omissions(c.format.Name) }

// leave counts what the format has no room for.
func (c *copier) leave(m detail) {
	if c.format.keeps&(1<<m) == 0 {
		c.left.leave(m)
	}
}

// cuts tells whether a packet is too long for the format.
func (c *copier) cuts(p *capture.Packet) bool {
	if len(p.Data) <= snaplen-maxHeader {
		return false
	}
	if c.format.Text {
		return len(p.Data) > snaplen
	}
	return checkHeader(p) == nil && len(p.Data)+len(appendHeader(nil, p)) > limitOf(p.Interface)
}

func (c *copier) leaveBlock(b *block) {
	known, ok := foreignBlocks[b.kind]
	switch {
	case ok:
		c.leave(known.detail)
	case b.kind == blockInterface:
		c.leave(interfaceBlocks)
	case b.kind == blockStatistics:
		c.leave(statisticsBlocks)
	case b.kind == blockSection && len(b.options) > 0:
		c.leave(sectionHeaders)
	case b.kind == blockSection:
	case b.kind == blockCustomUncopied:
		c.leave(customBlocks)
	default:
		c.leave(unknownBlocks)
	}
}

// leaveOfPacket counts the fields of a capture.Packet that the format has no room for.
func (c *copier) leaveOfPacket(p *capture.Packet) {
	if (p.Comment != "" || remark.HasFacts(p)) && !(c.format.Name == "text" && textKeeps(p)) {
		c.leave(packetComments)
	}
	for _, there := range []bool{p.ID != 0, p.Direction != 0, p.Drops != 0, p.PID != 0} {
		if there {
			c.leave(packetMarks)
		}
	}
	if hasReception(p) {
		c.leave(receptions)
	}
	m := &p.Meta
	if m.Tagged() && !(c.format.tags && restoresTag(p)) {
		c.leave(vlanTags)
	}
	for _, there := range []bool{m.Mark != 0, m.Priority != 0, m.GSOSize != 0} {
		if there {
			c.leave(packetMetadata)
		}
	}
	for _, there := range []bool{m.Hash != 0, m.Queue != 0} {
		if there {
			c.leave(flowMetadata)
		}
	}
	for _, there := range []bool{m.NonLinear != 0, m.ChecksumPartial} {
		if there {
			c.leave(stateMetadata)
		}
	}
}

func (c *copier) leaveOfTime(item *Item) {
	p, f := item.Packet, c.format
	switch {
	case item.block != nil && item.block.time == timeOutside, f.latest > 0 && p.Time > f.latest:
		c.leave(outsideTimes)
	case item.block != nil && item.block.time == timeRounded, f.unit > 1 && p.Time%f.unit != 0:
		c.leave(roundedTimes)
	}
}

// leaveOptions counts the options of a packet that capture.Packet has no field for.
func (c *copier) leaveOptions(p *capture.Packet, b *block) {
	o := optionsOf(b.options, b.order)
	for code, value, ok := o.next(); ok; code, value, ok = o.next() {
		switch code {
		case optionComment, packetDropCount, packetID, packetProcess:
		case packetFlags:
			if len(value) == 4 && b.order.Uint32(value)&^flagsOf(p) != 0 {
				c.leave(otherPacketOptions)
			}
		case packetHash:
			if !isFlowHash(value) {
				c.leave(otherPacketOptions)
			}
		case customBytes:
			ours := p.Interface.View == capture.ViewUser && isReception(value, b.order)
			if !ours && !isNonLinear(value, b.order) {
				c.leave(otherPacketOptions)
			}
		case packetQueue:
			if len(value) != 4 {
				c.leave(otherPacketOptions)
			}
		default:
			c.leave(otherPacketOptions)
		}
	}
}
