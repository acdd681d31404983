package convert

import (
	"bytes"
	"io"

	"github.com/ebpfdump/ebpfdump/capture"
)

// More block types of the draft: sections 4.5 and 4.7, systemd journal entries (4.8.1)
// and the two types of custom blocks (4.9).
const (
	blockNames          = 4
	blockJournal        = 9
	blockSecrets        = 10
	blockCustom         = 0x00000bad
	blockCustomUncopied = 0x40000bad
)

// largestBlock is the size in bytes of the largest block that Wireshark reads.
const largestBlock = 16 << 20

// foreignBlock tells how to copy a type of block that this project does not interpret.
type foreignBlock struct {
	detail detail
	// body appends the body of the block in our byte order, or nothing if it is damaged.
	body func(b []byte, from *block, left *omissionCounts) []byte
}

// foreignBlocks are the types that are copied.
var foreignBlocks = map[uint32]foreignBlock{
	blockNames:   {nameBlocks, appendNames},
	blockSecrets: {secretsBlocks, appendSecrets},
	blockCustom:  {customBlocks, appendCustom},
	blockJournal: {journalBlocks, appendJournal},
}

// appendNames appends the records of a name resolution block: type(16), length(16) and
// value, which is an address and its names, each zero-terminated. A record of type 0 ends
// the list.
func appendNames(b []byte, from *block, left *omissionCounts) []byte {
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

// validName tells whether a record holds an address and at least one name, and all names end.
func validName(kind uint16, value []byte) bool {
	size := map[uint16]int{1: 4, 2: 16, 3: 6, 4: 8}[kind] // IPv4, IPv6, EUI-48, EUI-64
	return size == 0 || len(value) > size && value[len(value)-1] == 0
}

// appendSecrets appends decryption secrets: their type, their length, and data that only
// the type explains.
func appendSecrets(b []byte, from *block, left *omissionCounts) []byte {
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

// appendJournal appends a journal entry, padded to 32 bits. Wireshark refuses entries too
// short to have a timestamp, and takes all zeros at the end for padding.
func appendJournal(b []byte, from *block, _ *omissionCounts) []byte {
	const shortest = len("__REALTIME_TIMESTAMP=0\n")
	if len(bytes.TrimRight(from.body, "\x00")) < shortest {
		return b
	}
	return append(b, from.body...)
}

// appendOptions appends the options of another file, and the end-of-options mark if there
// are any.
func appendOptions(b []byte, t *optionTable, o options, left *omissionCounts) []byte {
	empty := len(b)
	if b = appendForeign(b, t, o, left, nil); len(b) == empty {
		return b
	}
	return appendEndOfOptions(b)
}

// copyPcapng begins a section that keeps the contents of the copied files' section
// headers.
func copyPcapng(w io.Writer, o WriteOptions, left *omissionCounts) (itemWriter, error) {
	return newWriter(w, bufferSize, appendSection(nil, o.Section, o.sections(), left))
}

// writeItem writes an item of another file, and counts what it leaves out.
func (w *Writer) writeItem(item *Item, left *omissionCounts) error {
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

// copyInterface writes the interface block of another file if that was not done yet, and
// returns its id.
func (w *Writer) copyInterface(i *fileInterface, left *omissionCounts) (uint32, error) {
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

// copyStatistics writes the statistics of another file, unless their interface is not
// selected.
func (w *Writer) copyStatistics(from *block, left *omissionCounts) error {
	id, ok := w.copied[from.iface]
	if !ok {
		return nil
	}
	b := beginBlock(w.scratch[:0], blockStatistics)
	b = order.AppendUint32(b, id)
	b = appendTicks(b, from.iface, from.ticks)
	empty := len(b)
	b = appendForeign(b, &statisticsOptions, optionsOf(from.options, from.order), left, func(b []byte, code uint16, value []byte) ([]byte, bool) {
		if !from.iface.retimed || code != statisticsStart && code != statisticsEnd || len(value) != 8 {
			return b, false
		}
		ticks := uint64(from.order.Uint32(value))<<32 | uint64(from.order.Uint32(value[4:]))
		return appendTicks(appendOptionHead(b, code, 8), from.iface, ticks), true
	})
	if len(b) > empty {
		b = appendEndOfOptions(b)
	}
	w.scratch = endBlock(b, 0)
	return w.out.block(w.scratch)
}

// appendTicks appends a timestamp of an interface's clock, or of the one that it has in a copy.
func appendTicks(b []byte, i *fileInterface, ticks uint64) []byte {
	if i.retimed {
		at, _ := i.clock.nanoseconds(ticks)
		return appendTime(b, at)
	}
	return order.AppendUint32(order.AppendUint32(b, uint32(ticks>>32)), uint32(ticks))
}

// writeForeignPacket writes a packet with the options and the timestamp of its own file.
func (w *Writer) writeForeignPacket(p *capture.Packet, from *block, left *omissionCounts) error {
	if err := checkHeader(p); err != nil {
		return err
	}
	id, err := w.copyInterface(from.iface, left)
	if err != nil {
		return err
	}
	if from.iface.retimed && from.time != timeNone {
		left.leave(finestTimes)
		if from.time == timeOutside {
			left.leave(outsideTimes)
		}
	}
	size := blockFrame + 20 + maxHeader + min(len(p.Data), limitOf(p.Interface)) + 3 + (4 + 8) + len(from.options) + 4
	if err := w.out.reserve(size); err != nil {
		return err
	}
	start := len(w.out.buf)
	b := beginBlock(w.out.buf, blockEnhancedPacket)
	b = order.AppendUint32(b, id)
	b = appendTicks(b, from.iface, from.ticks)
	b = appendSizedData(b, p)
	empty := len(b)
	if from.drops > 0 {
		b = appendOptionUint64(b, packetDropCount, from.drops)
	}
	b = appendForeign(b, &packetOptions, optionsOf(from.options, from.order), left, func(b []byte, code uint16, value []byte) ([]byte, bool) {
		if code != packetID || len(value) != 8 {
			return b, false
		}
		return appendOptionUint64(b, packetID, p.ID), true // merging changes ids
	})
	if len(b) > empty {
		b = appendEndOfOptions(b)
	}
	w.out.buf = endBlock(b, start)
	w.out.packets++
	return nil
}
