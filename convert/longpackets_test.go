package convert

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert/internal/window"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// TestLongPacketsKeepTheirLength compares with tshark.
func TestLongPacketsKeepTheirLength(t *testing.T) {
	t.Parallel()
	f := newFile(binary.LittleEndian)
	f.section()
	f.iface(linkEthernet)
	for _, size := range []int{snaplen, snaplen + 1, window.Size - 100} {
		f.packet(0, 5, make([]byte, size))
	}
	for _, form := range []string{"pcapng", "pcap"} {
		copied, _ := copyOf(t, form, Section{}, f.Bytes())
		path := filepath.Join(t.TempDir(), "copy")
		if err := os.WriteFile(path, copied, 0o600); err != nil {
			t.Fatal(err)
		}
		wantFields(t, fields(t, path, "frame.cap_len", "frame.len"), "262144|262144", "262144|262145", "262144|1048476")
	}
}

// TestLongPacketsOfSomeLinkTypes compares with the other readers: they take more than
// 262144 bytes of a packet of these link types, and so does a copy.
func TestLongPacketsOfSomeLinkTypes(t *testing.T) {
	t.Parallel()
	testutil.RequireTool(t, "tcpdump")
	for link, sizes := range map[uint16][]int{
		linkDBus: {snaplen, snaplen + 1, longSnaplen, window.Size - 32}, linkUSBPcap: {900027}, linkEBHSCR: {longSnaplen},
	} {
		f := newFile(binary.LittleEndian)
		f.section()
		f.iface(link)
		var want []string
		for _, size := range sizes {
			f.packet(0, 5, make([]byte, size))
			want = append(want, fmt.Sprintf("%d|%d", min(size, longSnaplen), size))
		}
		for _, form := range []string{"pcapng", "pcap"} {
			copied, leftOut := copyOf(t, form, Section{}, f.Bytes())
			leftOut = slices.DeleteFunc(leftOut, func(s string) bool { return !strings.Contains(s, "cut") })
			if cut := []string{"1 packet cut to 1048448 bytes: longer ones could not be read again"}; link == linkDBus && !slices.Equal(leftOut, cut) ||
				link != linkDBus && len(leftOut) > 0 {
				t.Errorf("%s of link type %d: left out %q", form, link, leftOut)
			}
			path := filepath.Join(t.TempDir(), "copy")
			if err := os.WriteFile(path, copied, 0o600); err != nil {
				t.Fatal(err)
			}
			wantFields(t, fields(t, path, "frame.cap_len", "frame.len"), want...)
			run(t, "tcpdump", "-r", path, "-w", filepath.Join(t.TempDir(), "read"))
			if len(packetsOf(t, path)) != len(sizes) {
				t.Errorf("%s of link type %d is not read to its end", form, link)
			}
		}
	}
}

// TestLongPacketsOfTexts has packets of texts that are longer than any that is kept: it is said of each once,
// also where the header before the bytes makes it longer still, and in every form.
func TestLongPacketsOfTexts(t *testing.T) {
	t.Parallel()
	for _, size := range []int{snaplen, snaplen + 16} {
		var dump strings.Builder
		for at := 0; at < size; at += 16 {
			fmt.Fprintf(&dump, "%08x: %s\n", at, strings.Repeat("4500 ", 8))
		}
		for _, name := range []string{"packet", "raw", "udp", "unix-dgram"} {
			kind, ok := capture.KindByName(name)
			if !ok {
				t.Fatal(name)
			}
			for _, form := range []string{"pcapng", "json"} {
				_, leftOut := copyRead(t, form, Section{}, ReadOptions{Name: "in", Kind: kind}, []byte(dump.String()))
				cut := slices.Contains(leftOut, "1 packet cut to 262144 bytes: Wireshark refuses files that have longer ones")
				// A header that is put before as many bytes as fit does not.
				want := size > snaplen || form == "pcapng" && name != "packet" && name != "raw"
				if cut != want {
					t.Errorf("%d bytes of %s in %s: left out %q", size, name, form, leftOut)
				}
			}
		}
	}
}
