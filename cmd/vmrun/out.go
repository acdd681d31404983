package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// out is a file or folder that comes back from the guest.
type out struct {
	pair
	stream  bytes.Buffer // see sendOut
	missing string       // why it could not be sent
	// optional is a file that the program may not have written.
	optional bool
}

// testProfiles are the flags of a test binary that name an output file or folder.
var testProfiles = []string{
	"coverprofile", "gocoverdir", "cpuprofile", "memprofile", "blockprofile", "mutexprofile", "trace",
}

// testOuts finds the files that "go test" expects a test binary to write.
func testOuts(args []string, absolute func(string) string) []*out {
	var outs []*out
	for _, arg := range args {
		name, value, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		for _, profile := range testProfiles {
			if name == "test."+profile && value != "" {
				p := absolute(value)
				outs = append(outs, &out{pair: pair{p, p}, optional: true})
			}
		}
	}
	return outs
}

// save writes the file or folder on the host.
func (o *out) save() error {
	if o.missing != "" {
		if o.optional {
			return nil
		}
		return fmt.Errorf("getting %s: %s", o.guest, o.missing)
	}
	z, err := gzip.NewReader(&o.stream)
	if err != nil {
		return fmt.Errorf("getting %s: %w", o.guest, err)
	}
	r := tar.NewReader(z)
	for {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = saveMember(o.host, header, r)
		}
		if err != nil {
			return fmt.Errorf("getting %s: %w", o.guest, err)
		}
	}
}

func saveMember(base string, header *tar.Header, r io.Reader) error {
	if !filepath.IsLocal(header.Name) {
		return fmt.Errorf("%q leaves the folder", header.Name)
	}
	name := filepath.Join(base, header.Name)
	if header.FileInfo().IsDir() {
		return os.MkdirAll(name, 0o755)
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, header.FileInfo().Mode().Perm())
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
