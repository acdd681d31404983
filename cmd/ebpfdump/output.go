package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// outputFile is a file that is written only once all is well: until Begin, an
// older file of the same name is as it was, and a new one goes away with Abort.
type outputFile struct {
	*os.File
	created bool
}

// createOutput opens a file for writing, for its owner only. Waiting for the
// reader of a fifo ends with the context.
func createOutput(ctx context.Context, name string) (*outputFile, error) {
	_, err := os.Lstat(name)
	created := errors.Is(err, fs.ErrNotExist)
	type opened struct {
		file *os.File
		err  error
	}
	done := make(chan opened, 1)
	go func() {
		file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
		done <- opened{file, err}
	}()
	select {
	case o := <-done:
		if o.err != nil {
			return nil, fmt.Errorf("opening the output: %w", o.err)
		}
		return &outputFile{File: o.file, created: created}, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("opening the output: nobody reads %s", name)
	}
}

// Begin makes the file empty.
func (f *outputFile) Begin() error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("opening the output: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	if err := f.Truncate(0); err != nil {
		return fmt.Errorf("emptying the output: %w", err)
	}
	return nil
}

// Abort closes the file, and removes it if it was not there before.
func (f *outputFile) Abort() {
	f.Close()
	if f.created {
		os.Remove(f.Name())
	}
}
