package convert

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// shortest is longer than any header that Wireshark insists on, but those of ERF with many
// extensions.
const shortest = 40

// beginnings are what short packets are cut from: what may be the header of some link type, or
// nearly, such as an ERF record of each type, and Linux cooked headers.
func beginnings(link uint16) [][]byte {
	all := [][]byte{make([]byte, shortest), bytes.Repeat([]byte{0xff}, shortest)}
	with := func(at int, values ...byte) {
		b := make([]byte, shortest)
		copy(b[at:], values)
		all = append(all, b)
	}
	for _, last := range [][]byte{{0, 0x16}, {0, 0x17}, {1, 0x17}, {0x17, 0}, {0, 0x30}, {1, 0x30}} {
		with(14, last...)
	}
	if link == linkERF {
		for kind := range 256 {
			with(8, byte(kind))
			with(8, byte(kind), 0, 0, 0, 0, 0, 0, 0, 0x80) // two extensions, if any
		}
	}
	return all
}

// filesWith writes each content to a file of its own.
func filesWith(t *testing.T, contents map[string][]byte) (paths []string) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range contents {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths
}

// counts are the numbers of packets that capinfos finds in files, by their names. Those that it
// refuses are missing.
func counts(t *testing.T, paths []string) map[string]string {
	t.Helper()
	cmd := exec.Command(testutil.RequireTool(t, "capinfos"), append([]string{"-T", "-r", "-M", "-c"}, paths...)...)
	out, err := cmd.Output()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		path, n, _ := strings.Cut(strings.TrimSpace(line), "\t")
		found[filepath.Base(path)] = n
	}
	return found
}

// TestShortPacketsOfAnyLinkType copies packets of every length up to that of the longest header,
// of every link type. capinfos reads all that is written, to pcapng and to pcap, and refuses a
// file with the longest of each kind that was left out.
func TestShortPacketsOfAnyLinkType(t *testing.T) {
	t.Parallel()
	const links = 400
	f := newFile(binary.BigEndian)
	f.section()
	for link := range uint16(links) {
		f.iface(link)
	}
	refused := make(map[string][]byte) // files, by name
	copies := make(map[string][]byte)
	want := make(map[string]string)
	kept, left := 0, 0
	for link := range uint16(links) {
		single := newFile(binary.LittleEndian)
		single.section()
		single.iface(link)
		before, here := left, 0
		for n, b := range beginnings(link) {
			last := []byte(nil)
			for size := range shortest + 1 {
				f.packet(uint32(link), 5, b[:size])
				single.packet(0, 5, b[:size])
				if isHeadless(&capture.Packet{Interface: &capture.Interface{Layer: capture.LayerForeign, LinkType: link}, Data: b[:size]}) {
					left++
					last = b[:size]
				} else {
					kept++
					here++
				}
			}
			if left > before && last != nil {
				alone := newFile(binary.LittleEndian)
				alone.section()
				alone.iface(link)
				alone.packet(0, 5, last)
				refused[fmt.Sprintf("%d-%d.pcapng", link, n)] = alone.Bytes()
			}
		}
		if left > before {
			name := fmt.Sprintf("%d.pcap", link)
			copies[name], _ = copyOf(t, "pcap", Section{}, single.Bytes())
			want[name] = fmt.Sprint(here)
		}
	}
	all, leftOut := copyOf(t, "pcapng", Section{}, f.Bytes())
	if sentence := fmt.Sprintf("%d packets without the header of their link type left out: Wireshark refuses files with such", left); !slices.Equal(leftOut, []string{sentence}) {
		t.Errorf("left out %q, want %q", leftOut, sentence)
	}
	copies["all.pcapng"], want["all.pcapng"] = all, fmt.Sprint(kept)
	for name, n := range counts(t, filesWith(t, copies)) {
		if n != want[name] {
			t.Errorf("%s has %s packets, want %s", name, n, want[name])
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("capinfos refuses %v", want)
	}
	if len(refused) < 500 { // the types of ERF alone are more
		t.Errorf("%d packets were left out", len(refused))
	}
	if read := counts(t, filesWith(t, refused)); len(read) > 0 {
		t.Errorf("of %d files with a packet that was left out, capinfos reads %v", len(refused), read)
	}
}
