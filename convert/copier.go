package convert

import (
	"io"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/remark"
)

// Copier writes the items of files in some form, and counts what the form has no
// room for. Between two pcapng files that is little: nothing that other programs
// wrote has to be understood to be kept.
type Copier struct {
	format *Format
	w      PacketWriter
	left   Ledger
}

// Copy begins to write a copy of o.From. As with Create, the first bytes may wait.
func (f *Format) Copy(w io.Writer, o WriteOptions) (*Copier, error) {
	c := &Copier{format: f}
	var sections []*fileSection
	for _, s := range o.From {
		if r, ok := s.Reader.(*pcapngReader); ok && r.section != nil {
			sections = append(sections, r.section)
		}
	}
	var err error
	if f.Name == "pcapng" {
		c.w, err = newWriter(w, bufferSize, appendSection(nil, o.Section, sections, &c.left))
		return c, err
	}
	for _, s := range sections {
		if len(s.options.bytes) > 0 {
			c.left.leave(sectionHeaders)
		}
	}
	c.w, err = f.Create(w, o)
	return c, err
}

// WriteItem writes an item, or counts it.
func (c *Copier) WriteItem(item *Item) error {
	if item.block != nil && item.block.time == timeNone && item.Packet != nil {
		c.left.leave(timelessPackets)
	}
	if item.Packet != nil && c.format.keeps&(1<<longPackets) == 0 && c.cuts(item.Packet) {
		c.left.leave(longPackets)
	}
	if ng, ok := c.w.(*Writer); ok {
		return ng.writeItem(item, &c.left)
	}
	if item.Packet == nil {
		c.leaveBlock(item.block)
		return nil
	}
	if err := c.w.WritePacket(item.Packet); err != nil {
		return err
	}
	c.leaveOfPacket(item.Packet)
	c.leaveOfTime(item)
	if item.block != nil {
		c.leaveOptions(item.block)
	}
	return nil
}

// Flush hands on what waits.
func (c *Copier) Flush() error { return c.w.Flush() }

// LeftOut lists what of the items is not in the copy, or not as it was.
func (c *Copier) LeftOut() []Omission { return c.left.omissions(c.format.Name) }

// leave counts what the form has no room for.
func (c *Copier) leave(m matter) {
	if c.format.keeps&(1<<m) == 0 {
		c.left.leave(m)
	}
}

// cuts tells whether a packet is longer than those of a file.
func (c *Copier) cuts(p *capture.Packet) bool {
	if len(p.Data) <= snaplen-maxHeader {
		return false
	}
	if c.format.Text {
		return len(p.Data) > snaplen
	}
	return checkHeader(p) == nil && len(p.Data)+len(appendHeader(nil, p)) > snaplen
}

func (c *Copier) leaveBlock(b *block) {
	known, ok := foreignBlocks[b.kind]
	switch {
	case ok:
		c.leave(known.matter)
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

// leaveOfPacket counts what this project knows of a packet.
func (c *Copier) leaveOfPacket(p *capture.Packet) {
	if (p.Comment != "" || remark.HasFacts(p)) && !(c.format.Name == "text" && textKeeps(p)) {
		c.leave(packetComments)
	}
	for _, there := range []bool{p.ID != 0, p.Direction != 0, p.Drops != 0, p.PID != 0} {
		if there {
			c.leave(packetMarks)
		}
	}
}

func (c *Copier) leaveOfTime(item *Item) {
	p, f := item.Packet, c.format
	switch {
	case item.block != nil && item.block.time == timeOutside, f.latest > 0 && p.Time > f.latest:
		c.leave(outsideTimes)
	case item.block != nil && item.block.time == timeRounded, f.unit > 1 && p.Time%f.unit != 0:
		c.leave(roundedTimes)
	}
}

// leaveOptions counts what only other programs know of a packet.
func (c *Copier) leaveOptions(b *block) {
	o := optionsOf(b.options, b.order)
	for code, value, ok := o.next(); ok; code, value, ok = o.next() {
		switch code {
		case optionComment, packetDropCount, packetID, packetProcess:
		case packetFlags:
			if len(value) == 4 && b.order.Uint32(value)&^3 != 0 {
				c.leave(otherPacketOptions)
			}
		default:
			c.leave(otherPacketOptions)
		}
	}
}
