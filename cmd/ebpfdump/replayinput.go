package main

import (
	"fmt"
	"os"
)

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
