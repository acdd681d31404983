package convert

import (
	"bytes"
	"encoding/binary"
	"strconv"

	"github.com/ebpfdump/ebpfdump/capture"
)

// The Reception of a packet is in a custom option, of which other tools show nothing and which
// they copy as it is. Its value is, in 32-bit numbers that are big endian in any section but
// for the first one:
//
//	enterprise number, receptionMark and flags, size of the buffer,
//	length of the message, msg_flags, size of the segments, bytes of further ancillary data,
//	and for each control message level, type and length of the data
//
// Zeros at the end are left out.
const (
	// enterprise is the number that RFC 5612 reserves for examples, since this project has
	// none of its own. The mark tells its options from those of others.
	enterprise = 32473
	// receptionMark is the first three bytes of the second number.
	receptionMark = 'r'<<24 | 'c'<<16 | 'v'<<8

	receptionHasBuffer = 1
	receptionCut       = 2

	receptionNumbers = 4 // before those of control messages
	controlNumbers   = 3 // of each of these
	// maxReception is the largest size of the option.
	maxReception = 4 + 4*(3+receptionNumbers+controlNumbers*capture.ControlsMax)
)

// hasReception tells whether a packet has a Reception, which only those of the user view have.
func hasReception(p *capture.Packet) bool {
	r := &p.Reception
	return r.Flags|r.Segment|r.ControlRest|uint32(len(r.Controls)) != 0 || r.HasBuffer
}

// appendReception appends the option.
func appendReception(b []byte, r *capture.Reception) []byte {
	flags := uint32(receptionMark)
	if r.HasBuffer {
		flags |= receptionHasBuffer
	}
	if r.Cut {
		flags |= receptionCut
	}
	start := len(b)
	b = order.AppendUint32(appendOptionHead(b, customBytes, 0), enterprise)
	b = binary.BigEndian.AppendUint32(b, flags)
	b = binary.BigEndian.AppendUint32(b, r.Buffer)
	if r.Whole|r.Flags|r.Segment|r.ControlRest != 0 || len(r.Controls) > 0 {
		b = appendReceptionRest(b, r)
	}
	order.PutUint16(b[start+2:], uint16(len(b)-start-4))
	return b
}

func appendReceptionRest(b []byte, r *capture.Reception) []byte {
	for _, n := range [receptionNumbers]uint32{r.Whole, r.Flags, r.Segment, r.ControlRest} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	for _, c := range r.Controls[:min(len(r.Controls), capture.ControlsMax)] {
		for _, n := range [controlNumbers]uint32{uint32(c.Level), uint32(c.Type), c.Len} {
			b = binary.BigEndian.AppendUint32(b, n)
		}
	}
	return b
}

// isReception tells whether a custom option is one of appendReception.
func isReception(value []byte, from binary.ByteOrder) bool {
	return len(value) >= 12 && len(value) <= maxReception-4 && len(value)%4 == 0 &&
		from.Uint32(value) == enterprise && bytes.HasPrefix(value[4:], []byte("rcv"))
}

// parseReception reads the value of such an option. Controls is memory for those that it has.
func parseReception(value []byte, controls []capture.Control) (r capture.Reception) {
	number := func(i int) uint32 {
		if at := 4 + 4*i; at+4 <= len(value) {
			return binary.BigEndian.Uint32(value[at:])
		}
		return 0
	}
	r.Buffer = number(1)
	r.HasBuffer = number(0)&receptionHasBuffer != 0
	r.Cut = r.HasBuffer && number(0)&receptionCut != 0
	r.Whole, r.Flags, r.Segment, r.ControlRest = number(2), number(3), number(4), number(5)
	controls = controls[:0]
	for i := 2 + receptionNumbers; 4+4*(i+controlNumbers) <= len(value); i += controlNumbers {
		controls = append(controls, capture.Control{Level: int32(number(i)), Type: int32(number(i + 1)), Len: number(i + 2)})
	}
	if len(controls) > 0 {
		r.Controls = controls
	}
	return r
}

// appendJSONReception appends what the call was given and said, and the error with which it
// failed.
func appendJSONReception(b []byte, p *capture.Packet) []byte {
	r := &p.Reception
	if p.Receipt.Errno != 0 {
		b = appendJSONText(b, "errno", p.Receipt.ErrnoName())
	}
	if r.HasBuffer {
		b = appendJSONNumber(b, "buffer", uint64(r.Buffer))
	}
	if r.Cut {
		b = append(appendJSONName(b, "cut_by_buffer"), "true"...)
	}
	b = appendJSONNumberIf(b, "message_length", uint64(r.Whole))
	if r.Flags != 0 {
		b = append(appendJSONName(b, "msg_flags"), '[')
		for i, name := range r.FlagNames() {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(append(append(b, '"'), name...), '"')
		}
		b = append(b, ']')
	}
	b = appendJSONNumberIf(b, "gro_size", uint64(r.Segment))
	if len(r.Controls) > 0 {
		b = append(appendJSONName(b, "ancillary"), '[')
		for i := range r.Controls {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSONControl(b, r.Controls[i])
		}
		b = append(b, ']')
	}
	return appendJSONNumberIf(b, "ancillary_rest", uint64(r.ControlRest))
}

func appendJSONControl(b []byte, c capture.Control) []byte {
	b = append(append(append(b, `{"name":"`...), c.Name()...), '"')
	b = strconv.AppendInt(appendJSONName(b, "level"), int64(c.Level), 10)
	b = strconv.AppendInt(appendJSONName(b, "type"), int64(c.Type), 10)
	b = appendJSONNumber(b, "length", uint64(c.Len))
	one := capture.Reception{Controls: []capture.Control{c}}
	b = appendJSONNumberIf(b, "descriptors", uint64(one.Descriptors()))
	return append(b, '}')
}
