package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/ebpfdump/ebpfdump/capture"
)

// keyVariable names the file to which TLS libraries write the keys of their connections.
const keyVariable = "SSLKEYLOGFILE"

// commandKeys is the value of --tls-keys without a file: the command makes one.
const commandKeys = "-"

// tlsKeys is a TLS key log that others write.
type tlsKeys struct {
	file   *os.File
	folder string // ours, to be removed; empty for a log of the user's
	read   int64
	looked time.Time
	lines  uint64
}

const (
	// keyPause is how often the log is looked at. What a packet needs was written before the
	// packet was sent, and packets are taken some milliseconds later.
	keyPause = time.Millisecond
	// keyChunk is how much of it is read at once, and keyLimit how much in all.
	keyChunk = 1 << 20
	keyLimit = 256 << 20
)

// keyLine is a line of a key log: a label, what the connection is known by, a secret. All else is
// left out.
var keyLine = regexp.MustCompile(`^[A-Z][A-Z0-9_]{1,63} [0-9a-fA-F]{2,256} [0-9a-fA-F]{2,512}\r?$`)

// openKeys opens a key log, or makes one for a command of that user (nil for the caller's own).
func openKeys(name string, user *capture.User) (k *tlsKeys, err error) {
	if name != commandKeys {
		file, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("reading TLS keys: %w", err)
		}
		return &tlsKeys{file: file}, nil
	}
	// The folder is ours, so that the log can be removed without a privilege, and the file the
	// command's.
	folder, err := os.MkdirTemp("", "ebpfdump-keys-")
	if err != nil {
		return nil, fmt.Errorf("making a file for TLS keys: %w", err)
	}
	k = &tlsKeys{folder: folder}
	defer func() {
		if err != nil {
			err = fmt.Errorf("making a file for TLS keys: %w", err)
			k.close()
		}
	}()
	if err := os.Chmod(folder, 0o711); err != nil {
		return nil, err
	}
	if k.file, err = os.OpenFile(k.name(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, err
	}
	if user != nil {
		err = k.file.Chown(int(user.UID), int(user.GID))
	}
	return k, err
}

// name is that of our own log.
func (k *tlsKeys) name() string { return filepath.Join(k.folder, "keys") }

// variable is what the command's environment gets.
func (k *tlsKeys) variable() string { return keyVariable + "=" + k.name() }

// added returns the whole lines that have come, and nothing if it was asked just before.
func (k *tlsKeys) added() ([]byte, error) {
	if now := time.Now(); now.Sub(k.looked) < keyPause {
		return nil, nil
	} else {
		k.looked = now
	}
	info, err := k.file.Stat()
	if err != nil || info.Size() <= k.read || k.read >= keyLimit {
		return nil, err
	}
	b := make([]byte, min(info.Size()-k.read, keyChunk))
	n, err := k.file.ReadAt(b, k.read)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading TLS keys: %w", err)
	}
	whole := bytes.LastIndexByte(b[:n], '\n') + 1
	if whole == 0 && n == keyChunk {
		whole = n // no line is as long
	}
	k.read += int64(whole)
	var log []byte
	for line := range bytes.Lines(b[:whole]) {
		if keyLine.Match(bytes.TrimSuffix(line, []byte("\n"))) {
			log = append(log, line...)
			k.lines++
		}
	}
	return log, nil
}

// close closes the log, and removes one of ours.
func (k *tlsKeys) close() {
	if k == nil {
		return
	}
	if k.file != nil {
		k.file.Close()
	}
	if k.folder != "" {
		_ = os.Remove(k.name())
		_ = os.Remove(k.folder)
	}
}

// writeKeys writes the keys that have come into the output.
func (out *captureOutput) writeKeys() error {
	if out.keys == nil || !out.Begun() {
		return nil
	}
	log, err := out.keys.added()
	if err != nil || len(log) == 0 {
		return err
	}
	return out.recordedFile.(interface{ WriteTLSKeys(log []byte) error }).WriteTLSKeys(log)
}
