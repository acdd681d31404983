package convert

import (
	"encoding/binary"

	"github.com/ebpfdump/ebpfdump/capture"
)

// Item is what comes next in a file: a packet, or a block besides the packets.
//
// A capture.Packet has what this project knows of a packet. What other programs
// wrote besides that rides along with the item, as it stands in their file, and
// only a File looks at it.
type Item struct {
	// Packet is nil for a block besides the packets.
	Packet *capture.Packet
	// block is where the item stands in a pcapng file, nil in other forms.
	block *block
}

// Interface is what a block besides the packets is about: the interface that it
// describes or counts for. It is nil for blocks that are about all interfaces.
func (i *Item) Interface() *capture.Interface {
	if i.Packet != nil {
		return i.Packet.Interface
	}
	if i.block == nil || i.block.iface == nil {
		return nil
	}
	return i.block.iface.own
}

// ItemReader gives all that is in files, and not only the packets. Items are
// good until the next call, as the packets of a Reader are.
type ItemReader interface {
	Reader
	NextItem() (*Item, error)
}

// packetItems are the items of a form that has nothing but packets.
type packetItems struct {
	Reader
	item Item
}

func (r *packetItems) NextItem() (*Item, error) {
	p, err := r.Next()
	r.item.Packet = p
	return &r.item, err
}

// itemsOf gives the items of any reader.
func itemsOf(r Reader) ItemReader {
	if items, ok := r.(ItemReader); ok {
		return items
	}
	return &packetItems{Reader: r}
}

// block is a block of a pcapng file, as it stands there.
type block struct {
	kind  uint32
	order binary.ByteOrder
	// iface is the interface that it is about, if any.
	iface *fileInterface
	// ticks is a packet's time as the interface counts it, or that of statistics.
	ticks uint64
	time  timeLoss
	// drops are those of an obsolete packet block, which has a field for them.
	drops uint64
	// options are those of packets, statistics and sections, and body is all that
	// other blocks hold. A block that is too large has neither.
	options []byte
	body    []byte
}

// timeLoss tells what becomes of a time as a number of nanoseconds.
type timeLoss uint8

const (
	// timeExact: it is the same time.
	timeExact timeLoss = iota
	// timeRounded: something below a nanosecond is lost.
	timeRounded
	// timeOutside: it is before 1970 or after 2262.
	timeOutside
	// timeNone: the packet has none.
	timeNone
)
