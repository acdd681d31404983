package convert

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"strings"
)

// Option codes of all blocks (section 3.5 of the draft). The Private Enterprise Number at
// the start of a custom option's value identifies its owner.
const (
	customText          = 2988
	customBytes         = 2989
	customTextUncopied  = 19372
	customBytesUncopied = 19373
)

const (
	interfaceFilter = 11
	packetVerdict   = 7
)

// valueForm tells how a section's byte order affects the value of an option.
type valueForm uint8

const (
	// formBytes: not at all, as for texts and addresses.
	formBytes valueForm = iota + 1
	// formNumbers: the value consists of 32-bit numbers. A 64-bit time is two of them,
	// the upper half first in either order.
	formNumbers
	// formNumber64: the value is a 64-bit number.
	formNumber64
	// formFilter: a byte tells which kind of filter follows.
	formFilter
	// formCustom: a 32-bit number, then data that only its owner can interpret.
	formCustom
	// formUncopied: the option must not be copied to other files.
	formUncopied
	// formVerdict: the tools of Wireshark 4.0 rewrite it with the code of epb_queue, and
	// then refuse the file.
	formVerdict
)

// optionForm tells what a value must look like. Wireshark treats a file as damaged if an
// option has another length.
type optionForm struct {
	form              valueForm
	shortest, longest int
}

// optionTable holds the options that are specific to a type of block, by code.
type optionTable [19]optionForm

func exactly(size int, form valueForm) optionForm { return optionForm{form, size, size} }

var anyText = optionForm{formBytes, 0, math.MaxUint16}

// The options of the draft's sections 4.1 to 4.6 and appendix A.
var (
	sectionOptions = optionTable{sectionHardware: anyText, sectionOS: anyText, sectionApplication: anyText}

	interfaceOptions = optionTable{
		interfaceName: anyText, interfaceDescription: anyText,
		4:               exactly(8, formBytes),    // IPv4 address and mask
		5:               exactly(17, formBytes),   // IPv6 address and prefix
		6:               exactly(6, formBytes),    // MAC address
		7:               exactly(8, formBytes),    // EUI address
		8:               exactly(8, formNumber64), // speed
		10:              exactly(4, formNumbers),  // time zone
		interfaceFilter: {formFilter, 1, math.MaxUint16},
		12:              anyText,                  // operating system
		13:              exactly(1, formBytes),    // length of the frame check sequence
		15:              anyText,                  // hardware
		16:              exactly(8, formNumber64), // speed of sending
		17:              exactly(8, formNumber64), // speed of receiving
		18:              anyText,                  // name of the time zone
	}

	packetOptions = optionTable{
		packetFlags:     exactly(4, formNumbers),
		3:               {formBytes, 1, math.MaxUint16}, // hash
		packetDropCount: exactly(8, formNumber64),
		packetID:        exactly(8, formNumber64),
		6:               exactly(4, formNumbers), // queue
		packetVerdict:   {formVerdict, 0, math.MaxUint16},
		packetProcess:   exactly(8, formNumbers),
	}

	statisticsOptions = optionTable{
		statisticsStart: exactly(8, formNumbers), statisticsEnd: exactly(8, formNumbers),
		statisticsReceived: exactly(8, formNumber64), statisticsDropped: exactly(8, formNumber64),
		statisticsAccepted: exactly(8, formNumber64), statisticsOSDropped: exactly(8, formNumber64),
		statisticsDelivered: exactly(8, formNumber64),
	}

	// nameOptions describe the DNS server that resolved the names.
	nameOptions = optionTable{2: anyText, 3: exactly(4, formBytes), 4: exactly(16, formBytes)}

	secretsOptions = optionTable{}
)

// darwinOptions are what the tcpdump of macOS says of packets, from darwinFirst on: numbers of 32
// or 16 bits, and the name of a function. Newer versions of Wireshark than 4.0 read them.
var darwinOptions = [10]optionForm{
	{0, 4, 4}, {0, 4, 4}, {0, 4, 4}, {0, 4, 4}, {0, 4, 4}, {0, 2, 2}, {0, 4, 4}, {0, 2, 2}, {0, 0, math.MaxUint16}, {0, 4, 4},
}

const darwinFirst = 32769

// find returns the form of an option, the zero value if the code is unknown.
func (t *optionTable) find(code uint16) optionForm {
	switch {
	case int(code) < len(t) && t[code].form != 0:
		return t[code]
	case code == optionComment:
		return anyText
	case t == &packetOptions && code >= darwinFirst && int(code-darwinFirst) < len(darwinOptions):
		return darwinOptions[code-darwinFirst]
	case code == customText || code == customBytes:
		return optionForm{formCustom, 4, math.MaxUint16}
	case code == customTextUncopied || code == customBytesUncopied:
		return optionForm{formUncopied, 0, math.MaxUint16}
	}
	return optionForm{longest: math.MaxUint16}
}

// options are the options of a block being read.
type options struct {
	bytes []byte
	// turned says that their byte order is not ours. It is a flag because calling the
	// methods of a binary.ByteOrder would cost more than all the rest.
	turned bool
}

func optionsOf(b []byte, from binary.ByteOrder) options { return options{b, from != order} }

// orderOf is the byte order of options, whether it is ours or the other one.
func orderOf(turned bool) binary.ByteOrder {
	if turned {
		return binary.BigEndian
	}
	return order
}

// uint16 reads a number.
func (o *options) uint16(b []byte) uint16 {
	n := order.Uint16(b)
	if o.turned {
		n = bits.ReverseBytes16(n)
	}
	return n
}

// next removes the first option. It returns false at the end of the options, and at one
// that is truncated.
func (o *options) next() (code uint16, value []byte, ok bool) {
	b := o.bytes
	if len(b) < 4 {
		return 0, nil, false
	}
	code, length := o.uint16(b), int(o.uint16(b[2:]))
	padded := 4 + (length+3)&^3
	if code == optionEnd || padded > len(b) {
		return 0, nil, false
	}
	o.bytes = b[padded:]
	return code, b[4 : 4+length], true
}

// comments returns all comments, one per line.
func (o options) comments() string {
	var first []byte
	var all *strings.Builder
	for code, value, ok := o.next(); ok; code, value, ok = o.next() {
		value = bytes.TrimRight(value, "\x00")
		switch {
		case code != optionComment:
		case first == nil:
			first = value
		case all == nil:
			all = new(strings.Builder)
			all.Write(first)
			fallthrough
		default:
			all.WriteByte('\n')
			all.Write(value)
		}
	}
	if all == nil {
		return optionText(first)
	}
	return optionText([]byte(all.String()))
}

// whole tells, after the last option, whether nothing follows it.
func (o *options) whole() bool { return len(o.bytes) < 4 || o.uint16(o.bytes) == optionEnd }

// appendForeign appends those options of another file's block that a copy may have, in
// our byte order. instead, if set, may append a replacement for an option, and then
// returns true.
func appendForeign(b []byte, t *optionTable, o options, left *omissionCounts, instead func(b []byte, code uint16, value []byte) ([]byte, bool)) []byte {
	for {
		code, value, ok := o.next()
		if !ok {
			break
		}
		if instead != nil {
			if with, ok := instead(b, code, value); ok {
				b = with
				continue
			}
		}
		b = appendForeignOption(b, t.find(code), code, value, o.turned, left)
	}
	if !o.whole() {
		left.leave(damagedParts)
	}
	return b
}

func appendForeignOption(b []byte, f optionForm, code uint16, value []byte, turned bool, left *omissionCounts) []byte {
	switch {
	case f.form == formUncopied:
		left.leave(uncopiedParts)
		return b
	case f.form == formVerdict:
		left.leave(verdicts)
		return b
	case len(value) < f.shortest || len(value) > f.longest:
		left.leave(damagedParts)
		return b
	case f.form == formCustom && len(value) < shortestCustom(value, orderOf(turned)):
		left.leave(damagedParts)
		return b
	case f.form == 0 && turned:
		left.leave(unknownOptions)
		return b
	}
	b = appendOptionHead(b, code, len(value))
	start := len(b)
	b = pad(append(b, value...), len(value))
	if turned {
		f.form.turn(b[start : start+len(value)])
	}
	return b
}

// turn swaps the byte order of a value.
func (f valueForm) turn(value []byte) {
	switch f {
	case formNumbers:
		turn32(value)
	case formNumber64:
		order.PutUint64(value, binary.BigEndian.Uint64(value))
	case formCustom:
		turn32(value[:4])
	case formFilter:
		// 0 precedes a filter expression, 1 classic BPF instructions.
		if value[0] == 1 {
			turnInstructions(value[1:])
		}
	}
}

// turn32 swaps the byte order of 32-bit numbers.
func turn32(b []byte) {
	for ; len(b) >= 4; b = b[4:] {
		order.PutUint32(b, binary.BigEndian.Uint32(b))
	}
}

// turnInstructions swaps the byte order of classic BPF instructions: a 16-bit code, two
// 8-bit jumps, and a 32-bit constant.
func turnInstructions(b []byte) {
	for ; len(b) >= 8; b = b[8:] {
		b[0], b[1] = b[1], b[0]
		turn32(b[4:8])
	}
}
