package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"golang.org/x/sys/unix"

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
	lines  uint64
}

const (
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
	removeStaleKeys()
	folder, err := os.MkdirTemp("", keyFolder)
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
	if err = unix.Flock(int(k.file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, err
	}
	if user != nil {
		err = k.file.Chown(int(user.UID), int(user.GID))
	}
	return k, err
}

// keyFolder is what the names of our folders begin with.
const keyFolder = "ebpfdump-keys-"

// removeStaleKeys removes the logs of captures that were killed: nobody holds their lock.
func removeStaleKeys() {
	folders, _ := filepath.Glob(filepath.Join(os.TempDir(), keyFolder+"*"))
	for _, folder := range folders {
		var st unix.Stat_t
		if unix.Lstat(folder, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() {
			continue
		}
		stale := &tlsKeys{folder: folder}
		fd, err := unix.Open(stale.name(), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		stale.file = os.NewFile(uintptr(fd), stale.name())
		if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil {
			stale.file.Close()
			continue
		}
		stale.close()
	}
}

// name is that of our own log.
func (k *tlsKeys) name() string { return filepath.Join(k.folder, "keys") }

// variable is what the command's environment gets.
func (k *tlsKeys) variable() string { return keyVariable + "=" + k.name() }

// added returns the whole lines that have come.
func (k *tlsKeys) added() ([]byte, error) {
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

// String says what is in the file.
func (k *tlsKeys) String() string {
	switch k.lines {
	case 0:
		return "no TLS secrets are in the file: nobody has logged any (" + keyVariable + ")"
	case 1:
		return "1 line of TLS secrets is in the file: whoever has it can read what was encrypted"
	}
	return fmt.Sprintf("%d lines of TLS secrets are in the file: whoever has it can read what was encrypted", k.lines)
}

// showsBoth tells whether views have both directions of a connection, as decrypting takes.
func showsBoth(views []capture.View) bool {
	has := func(v capture.View) bool { return slices.Contains(views, v) }
	return has(capture.ViewCgroup) || has(capture.ViewWire) || has(capture.ViewUser) && has(capture.ViewSent)
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

// heldPackets are packets that wait for keys: of TLS 1.3 a client logs those of the handshake after the
// server's answer has come, and Wireshark wants them before that.
type heldPackets struct {
	all   []capture.Packet
	first int // those before it are written
	bytes int
}

const (
	// keyDelay is how long a packet waits for keys, by the packets' times, and keyMemory how many
	// bytes of packets do.
	keyDelay  = 200 * time.Millisecond
	keyMemory = 32 << 20
)

// add keeps a copy of a packet.
func (h *heldPackets) add(p *capture.Packet) {
	c := *p
	c.Data = bytes.Clone(p.Data)
	c.Receipt.Fed.Ranges = slices.Clone(p.Receipt.Fed.Ranges)
	c.Receipt.Packets.Ranges = slices.Clone(p.Receipt.Packets.Ranges)
	c.Receipt.DroppedIDs.Ranges = slices.Clone(p.Receipt.DroppedIDs.Ranges)
	c.Reception.Controls = slices.Clone(p.Reception.Controls)
	h.all = append(h.all, c)
	h.bytes += len(c.Data)
}

// release writes the packets that have waited until a time, or that there is no room for.
func (h *heldPackets) release(until time.Time, write func(*capture.Packet) error) error {
	for ; h.first < len(h.all); h.first++ {
		p := &h.all[h.first]
		if h.bytes <= keyMemory && p.Time > until.UnixNano() {
			break
		}
		h.bytes -= len(p.Data)
		if err := write(p); err != nil {
			return err
		}
	}
	if h.first > len(h.all)/2 { // so that each packet is moved once at most
		n := copy(h.all, h.all[h.first:])
		clear(h.all[n:])
		h.all, h.first = h.all[:n], 0
	}
	return nil
}

// writeWithKeys writes the packets that have waited long enough, after the keys that have come.
func (out *captureOutput) writeWithKeys(until time.Time) error {
	if out.keys == nil {
		return nil
	}
	if err := out.writeKeys(); err != nil {
		return err
	}
	return out.held.release(until, out.recordedFile.WritePacket)
}

// writeKeys writes the keys that have come into the output.
func (out *captureOutput) writeKeys() error {
	if !out.Begun() {
		return nil
	}
	log, err := out.keys.added()
	if err != nil || len(log) == 0 {
		return err
	}
	return out.recordedFile.(interface{ WriteTLSKeys(log []byte) error }).WriteTLSKeys(log)
}
