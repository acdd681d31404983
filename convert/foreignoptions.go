package convert

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"strings"
)

// Option codes that are of any block (section 3.5 of the draft). The number
// (PEN) before a custom option's value says whose it is.
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

// valueForm is what the byte order of a section means to an option's value.
type valueForm uint8

const (
	// formBytes: nothing, as with texts and addresses.
	formBytes valueForm = iota + 1
	// formNumbers: the value is numbers of 32 bits each, also of 64-bit times,
	// whose upper half comes first in either order.
	formNumbers
	// formNumber64: the value is a number of 64 bits.
	formNumber64
	// formFilter: a byte that says which kind of filter follows.
	formFilter
	// formCustom: a number of 32 bits, then bytes whose order their owner knows.
	formCustom
	// formUncopied: it is for the file that it stands in only.
	formUncopied
	// formVerdict: Wireshark 4.0's tools write it again under the code of the
	// queue, and refuse the file that they wrote.
	formVerdict
)

// optionForm is what a value must be. Wireshark takes a file whose option has
// another length for a damaged one.
type optionForm struct {
	form              valueForm
	shortest, longest int
}

// optionTable has the options that only one type of block has, by their codes.
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

	// nameOptions are about the server that told the names.
	nameOptions = optionTable{2: anyText, 3: exactly(4, formBytes), 4: exactly(16, formBytes)}

	secretsOptions = optionTable{}
)

// find returns an option's form, whose form is 0 if the code is unknown.
func (t *optionTable) find(code uint16) optionForm {
	switch {
	case int(code) < len(t) && t[code].form != 0:
		return t[code]
	case code == optionComment:
		return anyText
	case code == customText || code == customBytes:
		return optionForm{formCustom, 4, math.MaxUint16}
	case code == customTextUncopied || code == customBytesUncopied:
		return optionForm{formUncopied, 0, math.MaxUint16}
	}
	return optionForm{longest: math.MaxUint16}
}

// options are those of a block that is being read.
type options struct {
	bytes []byte
	// turned says that their byte order is not ours. A flag, since a call of the
	// order's methods would cost more than all the rest.
	turned bool
}

func optionsOf(b []byte, from binary.ByteOrder) options { return options{b, from != order} }

// uint16 reads a number.
func (o *options) uint16(b []byte) uint16 {
	n := order.Uint16(b)
	if o.turned {
		n = bits.ReverseBytes16(n)
	}
	return n
}

// next takes the first option off. It returns false at the end of the options,
// and at one that is not whole.
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

// comments are all comments, each a line.
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

// whole tells, after the last option, whether there is nothing else.
func (o *options) whole() bool { return len(o.bytes) < 4 || o.uint16(o.bytes) == optionEnd }

// appendForeign appends all options of a block of another file that ours can
// have, in our byte order. instead, if set, may append another value for one
// and then returns true.
func appendForeign(b []byte, t *optionTable, o options, left *Ledger, instead func(b []byte, code uint16, value []byte) ([]byte, bool)) []byte {
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

func appendForeignOption(b []byte, f optionForm, code uint16, value []byte, turned bool, left *Ledger) []byte {
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

// turn changes the byte order of a value.
func (f valueForm) turn(value []byte) {
	switch f {
	case formNumbers:
		turn32(value)
	case formNumber64:
		order.PutUint64(value, binary.BigEndian.Uint64(value))
	case formCustom:
		turn32(value[:4])
	case formFilter:
		// A 0 is before an expression, a 1 before instructions of classic BPF.
		if value[0] == 1 {
			turnInstructions(value[1:])
		}
	}
}

// turn32 changes the byte order of numbers of 32 bits.
func turn32(b []byte) {
	for ; len(b) >= 4; b = b[4:] {
		order.PutUint32(b, binary.BigEndian.Uint32(b))
	}
}

// turnInstructions changes the byte order of instructions: code of 16 bits, two
// jumps of 8, and a constant of 32.
func turnInstructions(b []byte) {
	for ; len(b) >= 8; b = b[8:] {
		b[0], b[1] = b[1], b[0]
		turn32(b[4:8])
	}
}
