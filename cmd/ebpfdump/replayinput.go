package main

import (
	"fmt"
	"os"

	"github.com/ebpfdump/ebpfdump/convert"
)

// noteCutOff says that a capture is not whole, if so.
func (a *app) noteCutOff(source *convert.Source) {
	if at, ok := source.CutOff(); ok {
		a.stderr.Line("ebpfdump: %v", at)
	}
}

// openRecorded opens a capture to be read, of which - is stdin.
func openRecorded(name string) (*os.File, error) {
	if name == "-" {
		return os.Stdin, nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("reading the capture: %w", err)
	}
	return file, nil
}
