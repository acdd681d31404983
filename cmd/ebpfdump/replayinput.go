package main

import (
	"fmt"
	"io"
	"os"

	"github.com/ebpfdump/ebpfdump/convert"
)

// packetSource is a file of packets that is being read.
type packetSource struct {
	*convert.Source
	io.Closer
}

// noteCutOff says that a capture is not whole, if so.
func (a *app) noteCutOff(source *convert.Source) {
	if at, ok := source.CutOff(); ok {
		fmt.Fprintf(a.stderr, "ebpfdump: %v\n", at)
	}
}

// openPackets begins to read a capture, of which - is stdin.
func openPackets(name string) (packetSource, error) {
	file := os.Stdin
	if name != "-" {
		var err error
		if file, err = os.Open(name); err != nil {
			return packetSource{}, fmt.Errorf("reading the capture: %w", err)
		}
	}
	source, err := convert.Open(file, nil, convert.ReadOptions{Name: name, CutOff: true})
	if err != nil {
		file.Close()
		return packetSource{}, err
	}
	return packetSource{source, file}, nil
}
