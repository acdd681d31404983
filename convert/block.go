package convert

import (
	"encoding/binary"
	"math"
	"unicode/utf8"
)

// Block types of draft-ietf-opsawg-pcapng, sections 4.2, 4.3 and 4.6.
const (
	blockInterface      = 1
	blockStatistics     = 5
	blockEnhancedPacket = 6
)

// Option codes of draft-ietf-opsawg-pcapng: for all blocks (section 3.5), interface
// description blocks (4.2), enhanced packet blocks (4.3) and interface statistics blocks
// (4.6).
const (
	optionEnd     = 0
	optionComment = 1

	interfaceName        = 2
	interfaceDescription = 3
	interfaceResolution  = 9

	packetFlags     = 2
	packetHash      = 3
	packetDropCount = 4
	packetID        = 5
	packetQueue     = 6
	packetProcess   = 8

	statisticsStart     = 2
	statisticsEnd       = 3
	statisticsReceived  = 4
	statisticsDropped   = 5
	statisticsAccepted  = 6
	statisticsOSDropped = 7
	statisticsDelivered = 8
)

const (
	// blockFrame is the size of what surrounds the body of every block: type, length, and
	// the length again.
	blockFrame = 12
	// maxOption is the largest size of an option's value in bytes: the length field has
	// 16 bits.
	maxOption = math.MaxUint16
	// optionSpace is the most that an option adds to its value: code, length and padding.
	optionSpace = 4 + 3
)

var order = binary.LittleEndian

// beginBlock appends the start of a block, whose length endBlock fills in.
func beginBlock(b []byte, blockType uint32) []byte {
	return append(order.AppendUint32(b, blockType), 0, 0, 0, 0)
}

// endBlock completes the block that begins at start. Its body must be a multiple of 4
// bytes.
func endBlock(b []byte, start int) []byte {
	length := uint32(len(b) - start + 4)
	order.PutUint32(b[start+4:], length)
	return order.AppendUint32(b, length)
}

// appendOption appends one option of the block being written, padded to 32 bits. A value
// longer than maxOption is truncated at a rune boundary.
func appendOption(b []byte, code uint16, value string) []byte {
	value = cut(value, maxOption)
	b = appendOptionHead(b, code, len(value))
	return pad(append(b, value...), len(value))
}

// appendOptionUint32 appends an option with a 32-bit value in the section's byte order.
func appendOptionUint32(b []byte, code uint16, value uint32) []byte {
	return order.AppendUint64(b, uint64(value)<<32|4<<16|uint64(code))
}

// appendOptionUint64 appends an option with a 64-bit value in the section's byte order.
func appendOptionUint64(b []byte, code uint16, value uint64) []byte {
	return order.AppendUint64(appendOptionHead(b, code, 8), value)
}

// appendOptionTime appends an option with a timestamp of nanoseconds.
func appendOptionTime(b []byte, code uint16, nanoseconds int64) []byte {
	return appendTime(appendOptionHead(b, code, 8), nanoseconds)
}

func appendEndOfOptions(b []byte) []byte {
	return appendOptionHead(b, optionEnd, 0)
}

func appendOptionHead(b []byte, code uint16, length int) []byte {
	return order.AppendUint32(b, uint32(length)<<16|uint32(code))
}

// appendTime appends a timestamp: two 32-bit words, the more significant one first in
// either byte order. Times before the epoch become 0.
func appendTime(b []byte, nanoseconds int64) []byte {
	t := uint64(max(nanoseconds, 0))
	return order.AppendUint32(order.AppendUint32(b, uint32(t>>32)), uint32(t))
}

// pad appends the zeros that align a value of that length to 32 bits.
func pad(b []byte, length int) []byte {
	end := len(b) + -length&3
	return append(b, 0, 0, 0)[:end]
}

// cut returns at most the first limit bytes of a text, and never splits a rune.
func cut[T string | []byte](s T, limit int) T {
	if len(s) <= limit {
		return s
	}
	end := limit
	for end > limit-utf8.UTFMax+1 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}
