package convert

import (
	"encoding/binary"

	"github.com/ebpfdump/ebpfdump/capture"
)

// Item is the next thing in a file: a packet, or a block of another type.
//
// A capture.Packet holds what this project knows of a packet. What other programs wrote
// besides that stays with the item in the form that it has in their file, and only a File
// uses it.
type Item struct {
	// Packet is nil for a block that is no packet.
	Packet *capture.Packet
	// block is the item's block in a pcapng file, nil in other formats.
	block *block
	// cut says that the packet had more bytes in the text, of which the reader has kept snaplen.
	cut bool
}

// Interface is the interface that a block other than a packet describes or counts for. It
// is nil for blocks that concern all interfaces.
func (i *Item) Interface() *capture.Interface {
	if i.Packet != nil {
		return i.Packet.Interface
	}
	if i.block == nil || i.block.iface == nil {
		return nil
	}
	return i.block.iface.own
}

// ItemReader reads everything in files, not only the packets. Items are valid until the
// next call, like the packets of a Reader.
type ItemReader interface {
	Reader
	NextItem() (*Item, error)
}

// packetItems are the items of a format that holds only packets.
type packetItems struct {
	Reader
	text bool
	item Item
}

func (r *packetItems) NextItem() (*Item, error) {
	p, err := r.Next()
	r.item.Packet = p
	r.item.cut = r.text && p != nil && len(p.Data) == snaplen && p.Len > snaplen
	return &r.item, err
}

// itemsOf returns the items of any reader.
func itemsOf(r Reader) ItemReader {
	if items, ok := r.(ItemReader); ok {
		return items
	}
	return &packetItems{Reader: r, text: isTextReader(r)}
}

// block is a block of a pcapng file, in the file's own encoding.
type block struct {
	kind  uint32
	order binary.ByteOrder
	// iface is the interface that it belongs to, if any.
	iface *fileInterface
	// ticks is the timestamp of a packet or of statistics, in units of the interface's
	// clock.
	ticks uint64
	time  timeLoss
	// drops is the drop count of an obsolete packet block, which has a field for it.
	drops uint64
	// options are set for packets, statistics and sections, body for blocks of other
	// types. A block that is too large has neither.
	options []byte
	body    []byte
}

// timeLoss tells what converting a timestamp to nanoseconds lost.
type timeLoss uint8

const (
	// timeExact: nothing.
	timeExact timeLoss = iota
	// timeRounded: a fraction of a nanosecond.
	timeRounded
	// timeOutside: the time, which is before 1970 or after 2262.
	timeOutside
	// timeNone: nothing, since the packet has no time.
	timeNone
)
