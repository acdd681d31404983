package convert

import "encoding/binary"

// Private Enterprise Numbers whose blocks Wireshark interprets while it reads a file, so that
// damage in one is the end of the file.
const (
	penNetflix   = 10949
	penWireshark = 32622
)

// netflixOption is the shortest value of Netflix's custom options: the number and a type.
const netflixOption = 8

// appendCustom appends a custom block, whose data only its owner can interpret.
func appendCustom(b []byte, from *block, left *omissionCounts) []byte {
	if len(from.body) < 4 {
		return b
	}
	pen, data := from.order.Uint32(from.body), from.body[4:]
	headed := order.AppendUint32(b, pen)
	switch {
	case pen == penNetflix && !isNetflix(data):
		return b
	case pen == penWireshark:
		entry, ok := wiresharkEntry(data)
		if !ok {
			return b
		}
		return appendOptions(append(headed, data[:entry]...), new(optionTable), optionsOf(data[entry:], from.order), left)
	}
	return append(headed, data...)
}

// isNetflix tells whether a block of Netflix's Black Box Log is one that Wireshark reads: an
// event (type 1), or a number of events that were skipped (type 2), and nothing but comments and
// custom options. All is little-endian in any section.
func isNetflix(data []byte) bool {
	if len(data) < 4 {
		return false
	}
	size := 0
	switch binary.LittleEndian.Uint32(data) {
	case 1:
		size = 4
	case 2:
		size = 8
	}
	return size > 0 && len(data) >= size && areOptions(data[size:], func(uint16, int) bool { return false })
}

// wiresharkEntry checks a custom block of Wireshark's own, a type, a length and as many bytes, and
// returns the size of that, behind which the block's options are. All but these is little-endian
// in any section. What has an unknown type is nothing but bytes.
func wiresharkEntry(data []byte) (size int, ok bool) {
	const (
		head           = 8
		processEntries = 3 // a process: its id, and options
	)
	if len(data) < head {
		return 0, false
	}
	length := uint64(binary.LittleEndian.Uint32(data[4:]))
	end := head + (length+3)&^3
	switch {
	case end > uint64(len(data)):
		return 0, false
	case binary.LittleEndian.Uint32(data) != processEntries:
		return len(data), true
	}
	return int(end), length >= 4 && areOptions(data[head+4:head+length], func(code uint16, length int) bool {
		switch code {
		case 5, 6: // parent, user
			return length == 4
		case 8: // UUID
			return length == 16
		case 9: // time of its start
			return length == 8
		}
		return true
	})
}

// areOptions tells whether bytes are little-endian options that Wireshark reads. other judges
// the length of those that are neither comments nor custom ones.
func areOptions(b []byte, other func(code uint16, length int) bool) bool {
	for len(b) > 0 {
		if len(b) < 4 {
			return false
		}
		code, length := binary.LittleEndian.Uint16(b), int(binary.LittleEndian.Uint16(b[2:]))
		padded := 4 + (length+3)&^3
		if padded > len(b) {
			return false
		}
		value := b[4 : 4+length]
		b = b[padded:]
		switch {
		case code == optionEnd:
			return true
		case code == optionComment:
		case code == customText, code == customBytes, code == customTextUncopied, code == customBytesUncopied:
			if len(value) < shortestCustom(value, binary.LittleEndian) {
				return false
			}
		case !other(code, len(value)):
			return false
		}
	}
	return true
}

// shortestCustom is the size that a custom option must have at least: its owner's number, and
// what Wireshark insists on behind that.
func shortestCustom(value []byte, from binary.ByteOrder) int {
	if len(value) >= 4 && from.Uint32(value) == penNetflix {
		return netflixOption
	}
	return 4
}
