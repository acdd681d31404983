// Package outfile opens the files that a command writes. It refuses files that the
// command also reads and files that another user could have planted, and it overwrites an
// older file only once there is space for the new content.
package outfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Files are the files that one run of a command reads and writes. It is the only place
// that opens files for writing, so it can prevent that one is both.
//
// A Files may be used by several goroutines at once.
type Files struct {
	// Notice, if set, is called with what the user should know that is not an error.
	Notice func(text string)

	mu              sync.Mutex
	inputs, outputs []claim
}

// claim is a file in use, with the name that the user gave. Files are compared by device
// and inode, since they may have several names.
type claim struct {
	name string
	info fs.FileInfo
}

// SameFileError says that a file cannot be written because the command already uses it.
type SameFileError struct {
	// Name is the output, Other the name of the same file in its other use.
	Name, Other string
	// Input is set if the other use is as an input, not as another output.
	Input bool
}

func (e *SameFileError) Error() string {
	switch {
	case e.Input && e.Name == e.Other:
		return e.Name + " is the input and the output: it would be overwritten while it is read"
	case e.Input:
		return fmt.Sprintf("%s is the input and the output (%s): it would be overwritten while it is read", e.Other, e.Name)
	case e.Name == e.Other:
		return fmt.Sprintf("%s is the output twice: give each a file of its own", e.Name)
	}
	return fmt.Sprintf("%s is the same file as the output %s: give each a file of its own", e.Name, e.Other)
}

// stdinName and stdoutName name the standard files in messages.
const (
	stdinName  = "stdin"
	stdoutName = "stdout"
)

// Reads declares the files that the command reads, where - is stdin. It must be called
// before Create. A file that does not exist is ignored, since opening it will fail.
func (f *Files) Reads(names ...string) {
	for _, name := range names {
		switch name {
		case "":
		case "-":
			if info, err := os.Stdin.Stat(); err == nil {
				f.claimInput(stdinName, info)
			}
		default:
			if info, err := os.Stat(name); err == nil {
				f.claimInput(name, info)
			}
		}
	}
}

func (f *Files) claimInput(name string, info fs.FileInfo) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inputs = append(f.inputs, claim{name, info})
}

// Check returns an error if Create would refuse a file because it is in use, so that the
// user learns early about a file that is written later.
func (f *Files) Check(name string) error {
	if name == "" || name == "-" {
		return nil
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil // Create will report it
	}
	return f.check(name, info)
}

// check compares a file with those in use. Terminals, other devices and sockets may be
// both read and written.
func (f *Files) check(name string, info fs.FileInfo) error {
	if kind := info.Mode().Type(); kind&(fs.ModeCharDevice|fs.ModeSocket) != 0 {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	same := func(c claim) bool { return os.SameFile(c.info, info) }
	if i := slices.IndexFunc(f.inputs, same); i >= 0 {
		return &SameFileError{Name: name, Other: f.inputs[i].name, Input: true}
	}
	// Several outputs may write to one pipe.
	if i := slices.IndexFunc(f.outputs, same); i >= 0 && info.Mode().IsRegular() {
		return &SameFileError{Name: name, Other: f.outputs[i].name}
	}
	return nil
}

// claimOutput checks an open file, and records it as an output.
func (f *Files) claimOutput(name string, file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if err := f.check(name, info); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.outputs = append(f.outputs, claim{name, info})
	return nil
}

// release forgets an output.
func (f *Files) release(file *os.File) {
	info, err := file.Stat()
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.outputs = slices.DeleteFunc(f.outputs, func(c claim) bool { return os.SameFile(c.info, info) })
}

// Stdout prepares stdout for data: it returns w itself or, for a regular file, a File
// with the same checks as any other output.
func (f *Files) Stdout(w io.Writer) (io.Writer, error) {
	file, ok := w.(*os.File)
	if !ok {
		return w, nil
	}
	if err := f.claimOutput(stdoutName, file); err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return w, nil
	}
	end, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return w, nil
	}
	return &File{file: file, name: stdoutName, regular: true, begun: true, shared: true, end: end}, nil
}

// Create opens a file for writing; a new one is accessible only to its owner. An older
// file is untouched until the first Write. Waiting for the reader of a fifo ends with the
// context.
func (f *Files) Create(ctx context.Context, name string) (*File, error) {
	type opened struct {
		file *File
		err  error
	}
	done := make(chan opened, 1)
	go func() {
		file, err := f.create(name)
		done <- opened{file, err}
	}()
	select {
	case o := <-done:
		var same *SameFileError
		if o.err != nil && !errors.As(o.err, &same) {
			return nil, fmt.Errorf("opening the output: %w", o.err)
		}
		return o.file, o.err
	case <-ctx.Done():
		return nil, fmt.Errorf("opening the output: nobody reads %s", name)
	}
}

func (f *Files) create(name string) (*File, error) {
	if err := f.Check(name); err != nil {
		return nil, err
	}
	file, err := open(name, Caller())
	if err != nil {
		return nil, err
	}
	file.files = f
	// Check again, now that the file is open and cannot be replaced.
	err = f.claimOutput(name, file.file)
	if err == nil {
		if err = file.lock(); err != nil {
			f.release(file.file)
		}
	}
	if err != nil {
		file.abort()
		return nil, err
	}
	return file, nil
}

// MakeDirectory creates a directory for a command's files, accessible only to its owner,
// with its missing parents.
func (f *Files) MakeDirectory(name string) error {
	caller := Caller()
	if trimmed := strings.TrimRight(name, "/"); trimmed != "" {
		name = trimmed
	}
	at, err := resolve(name, caller, true)
	if err != nil {
		return err
	}
	defer at.close()
	if at.base == "." || at.kernel {
		return nil
	}
	return at.makeDirectory(at.base, caller)
}

// pathError makes an error like those of package os.
func pathError(op, name string, err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return &fs.PathError{Op: op, Path: name, Err: errno}
	}
	return err
}
