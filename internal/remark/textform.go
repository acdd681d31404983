package remark

// TextForm is a form in which a text has packets.
type TextForm uint8

// The forms of texts.
const (
	_          TextForm = iota
	FormRows            // rows of bytes with offsets
	FormLines           // a packet a line, in hexadecimal
	FormTrace           // what a filter printed to the kernel's trace
	FormServer          // what a server printed
)

var textForms = [...]struct{ packet, text string }{
	FormRows:   {"a packet in rows with offsets", "rows with offsets"},
	FormLines:  {"a packet in one line", "a packet a line"},
	FormTrace:  {"a packet that a filter has printed", "what a filter has printed"},
	FormServer: {"a packet that a server has printed", "what a server has printed"},
}

// MixedForms says that a packet in one form is skipped, since the text is read as one of another form.
func MixedForms(packet, text TextForm) string {
	return textForms[packet].packet + " in a text of " + textForms[text].text + ": it is skipped, convert each form by itself"
}
