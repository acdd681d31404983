package main

import (
	"fmt"
	"os"

	"github.com/ebpfdump/ebpfdump/convert"
)

// noteCutOff prints a notice if a capture is incomplete.
func (a *app) noteCutOff(source *convert.Source) {
	if at, ok := source.CutOff(); ok {
		a.stderr.Line("ebpfdump: %v", at)
	}
}

// openRecorded opens a capture, where - is stdin.
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
