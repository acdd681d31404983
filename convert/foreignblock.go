package convert

import (
	"bytes"
	"io"

	"github.com/ebpfdump/ebpfdump/capture"
)

// More block types of the draft: sections 4.5 and 4.7, those of systemd (4.8.1)
// and custom blocks (4.9), of which there are two.
const (
	blockNames          = 4
	blockJournal        = 9
	blockSecrets        = 10
	blockCustom         = 0x00000bad
	blockCustomUncopied = 0x40000bad
)

// largestBlock is the longest block in bytes that Wireshark reads.
const largestBlock = 16 << 20

// foreignBlock is how a type of block is copied, of whose contents this project
// uses nothing.
type foreignBlock struct {
	matter matter
	// body appends what is inside the block in our byte order, nothing if it is damaged.
	body func(b []byte, from *block, left *Ledger) []byte
}

// foreignBlocks are all types that are copied.
var foreignBlocks = map[uint32]foreignBlock{
	blockNames:   {nameBlocks, appendNames},
	blockSecrets: {secretsBlocks, appendSecrets},
	blockCustom:  {customBlocks, appendCustom},
	blockJournal: {journalBlocks, appendJournal},
}

// appendNames appends records of type(16), length(16) and value: an address and
// the names that it has, each with a zero behind it. A record of type 0 ends them.
func appendNames(b []byte, from *block, left *Ledger) []byte {
	rest := from.body
	for len(rest) >= 4 {
		kind, length := from.order.Uint16(rest), int(from.order.Uint16(rest[2:]))
		padded := 4 + (length+3)&^3
		if kind == 0 || padded > len(rest) {
			break
		}
		value := rest[4 : 4+length]
		rest = rest[padded:]
		if !validName(kind, value) {
			left.leave(damagedParts)
			continue
		}
		b = appendOptionHead(b, kind, length)
		b = pad(append(b, value...), length)
	}
	b = appendOptionHead(b, 0, 0)
	if len(rest) < 4 || from.order.Uint16(rest) != 0 {
		left.leave(damagedParts)
		return b
	}
	return appendOptions(b, &nameOptions, optionsOf(rest[4:], from.order), left)
}

// validName tells whether a record has an address and a name.
func validName(kind uint16, value []byte) bool {
	size := map[uint16]int{1: 4, 2: 16, 3: 6, 4: 8}[kind] // IPv4, IPv6, EUI-48, EUI-64
	return size == 0 || len(value) > size && bytes.IndexByte(value[size:], 0) >= 0
}

// appendSecrets appends keys: their type and their length, and what the type
// says that they are.
func appendSecrets(b []byte, from *block, left *Ledger) []byte {
	if len(from.body) < 8 {
		return b
	}
	kind, length := from.order.Uint32(from.body), from.order.Uint32(from.body[4:])
	keys := from.body[8:]
	if uint64(length) > uint64(len(keys)) {
		return b
	}
	padded := min((int(length)+3)&^3, len(keys))
	b = order.AppendUint32(order.AppendUint32(b, kind), length)
	b = pad(append(b, keys[:length]...), int(length))
	return appendOptions(b, &secretsOptions, optionsOf(keys[padded:], from.order), left)
}

// appendCustom appends what only its owner knows.
func appendCustom(b []byte, from *block, _ *Ledger) []byte {
	if len(from.body) < 4 {
		return b
	}
	b = order.AppendUint32(b, from.order.Uint32(from.body))
	return append(b, from.body[4:]...)
}

// appendJournal appends a text, with zeros up to the next 32 bits. The shortest
// entry that Wireshark takes has a time.
func appendJournal(b []byte, from *block, _ *Ledger) []byte {
	const shortest = len("__REALTIME_TIMESTAMP=0\n")
	if len(from.body) < shortest {
		return b
	}
	return append(b, from.body...)
}

// appendOptions appends the options of another file, and their end if there are any.
func appendOptions(b []byte, t *optionTable, o options, left *Ledger) []byte {
	empty := len(b)
	if b = appendForeign(b, t, o, left, nil); len(b) == empty {
		return b
	}
	return appendEndOfOptions(b)
}

// copyPcapng begins a section that keeps what the headers of copied files say.
func copyPcapng(w io.Writer, o WriteOptions, left *Ledger) (itemWriter, error) {
	return newWriter(w, bufferSize, appendSection(nil, o.Section, o.sections(), left))
}

// writeItem writes what another file has, and counts what of it stays behind.
func (w *Writer) writeItem(item *Item, left *Ledger) error {
	if w.out.err != nil {
		return w.out.err
	}
	from := item.block
	switch {
	case from == nil:
		return w.WritePacket(item.Packet)
	case item.Packet != nil:
		return w.writeForeignPacket(item.Packet, from, left)
	}
	switch from.kind {
	case blockInterface:
		_, err := w.copyInterface(from.iface, left)
		return err
	case blockStatistics:
		return w.copyStatistics(from, left)
	case blockSection:
		if len(from.options) > 0 {
			left.leave(laterSections)
		}
		return nil
	case blockCustomUncopied:
		left.leave(uncopiedParts)
		return nil
	}
	known, ok := foreignBlocks[from.kind]
	switch {
	case !ok:
		left.leave(unknownBlocks)
		return nil
	case from.body == nil:
		left.leave(largeBlocks)
		return nil
	}
	b := beginBlock(w.scratch[:0], from.kind)
	empty := len(b)
	if b = known.body(b, from, left); len(b) == empty {
		left.leave(damagedParts)
		return nil
	}
	w.scratch = endBlock(b, 0)
	return w.out.block(w.scratch)
}

// copyInterface writes the interface block of another file if it is not there
// yet, and returns its id.
func (w *Writer) copyInterface(i *fileInterface, left *Ledger) (uint32, error) {
	if i == w.lastCopied {
		return w.lastID, nil
	}
	if id, ok := w.copied[i]; ok {
		w.lastCopied, w.lastID = i, id
		return id, nil
	}
	b := beginBlock(w.scratch[:0], blockInterface)
	w.scratch = endBlock(append(b, i.body...), 0)
	if err := w.out.block(w.scratch); err != nil {
		return 0, err
	}
	left.add(&i.left)
	if w.copied == nil {
		w.copied = make(map[*fileInterface]uint32)
	}
	id := uint32(len(w.interfaces))
	w.copied[i] = id
	w.interfaces = append(w.interfaces, i.own)
	return id, nil
}

// copyStatistics writes statistics of another file, unless their interface was
// not asked for.
func (w *Writer) copyStatistics(from *block, left *Ledger) error {
	id, ok := w.copied[from.iface]
	if !ok {
		return nil
	}
	b := beginBlock(w.scratch[:0], blockStatistics)
	b = order.AppendUint32(b, id)
	b = order.AppendUint32(order.AppendUint32(b, uint32(from.ticks>>32)), uint32(from.ticks))
	b = appendOptions(b, &statisticsOptions, optionsOf(from.options, from.order), left)
	w.scratch = endBlock(b, 0)
	return w.out.block(w.scratch)
}

// writeForeignPacket writes a packet with the options and the time that it has in its file.
func (w *Writer) writeForeignPacket(p *capture.Packet, from *block, left *Ledger) error {
	if err := checkHeader(p); err != nil {
		return err
	}
	id, err := w.copyInterface(from.iface, left)
	if err != nil {
		return err
	}
	size := blockFrame + 20 + maxHeader + min(len(p.Data), snaplen) + 3 + (4 + 8) + len(from.options) + 4
	if err := w.out.reserve(size); err != nil {
		return err
	}
	start := len(w.out.buf)
	b := beginBlock(w.out.buf, blockEnhancedPacket)
	b = order.AppendUint32(b, id)
	b = order.AppendUint32(order.AppendUint32(b, uint32(from.ticks>>32)), uint32(from.ticks))
	b = appendSizedData(b, p)
	empty := len(b)
	if from.drops > 0 {
		b = appendOptionUint64(b, packetDropCount, from.drops)
	}
	b = appendForeign(b, &packetOptions, optionsOf(from.options, from.order), left, func(b []byte, code uint16, value []byte) ([]byte, bool) {
		if code != packetID || len(value) != 8 {
			return b, false
		}
		return appendOptionUint64(b, packetID, p.ID), true // merging files changes it
	})
	if len(b) > empty {
		b = appendEndOfOptions(b)
	}
	w.out.buf = endBlock(b, start)
	w.out.packets++
	return nil
}
