package convert

import (
	"github.com/ebpfdump/ebpfdump/convert/internal/text"
	"github.com/ebpfdump/ebpfdump/convert/internal/window"
)

// ErrUnknownKind is the error for a text from which the kind of socket cannot be
// inferred.
var ErrUnknownKind = text.ErrUnknownKind

func openTrace(in *window.Window, o ReadOptions) (Reader, error) {
	return text.NewTrace(in, o.text()), nil
}

func openServer(in *window.Window, o ReadOptions) (Reader, error) {
	return text.NewServer(in, o.text()), nil
}

func openHexdump(in *window.Window, o ReadOptions) (Reader, error) {
	return text.NewHexdump(in, o.text()), nil
}

func openHexLines(in *window.Window, o ReadOptions) (Reader, error) {
	return text.NewHexLines(in, o.text()), nil
}

// isTextReader tells whether a reader is one of texts, which keeps snaplen bytes of a packet.
func isTextReader(r Reader) bool {
	switch r.(type) {
	case *text.Trace, *text.Server, *text.Pair, *text.Hexdump:
		return true
	}
	return false
}

// text returns the options for a text.
func (o ReadOptions) text() text.Options {
	at := func(line int64, reason error) *InputError { return &InputError{Name: o.Name, Line: line, Err: reason} }
	options := text.Options{
		Kind: o.Kind, Src: o.Src, Dst: o.Dst, BootTime: o.BootTime, Strict: o.Strict, Snaplen: snaplen,
		Error: func(line int64, reason error) error { return at(line, reason) },
	}
	if o.Doubt != nil {
		options.Doubt = func(line int64, reason error) { o.Doubt(at(line, reason)) }
	}
	return options
}
