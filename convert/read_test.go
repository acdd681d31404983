package convert

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert/internal/text"
)

// reading is everything that was read from an input.
type reading struct {
	packets []*capture.Packet
	doubts  []string
	err     error // nil at the end of the input
}

// read reads all of an input.
func read(t testing.TB, r io.Reader, o ReadOptions) (got reading) {
	t.Helper()
	if o.Name == "" {
		o.Name = "in"
	}
	o.Doubt = func(e *InputError) { got.doubts = append(got.doubts, e.Error()) }
	source, err := Open(r, nil, o)
	if err != nil {
		got.err = err
		return got
	}
	got.packets, got.err = drain(source)
	return got
}

// drain reads all packets of a reader.
func drain(r Reader) (packets []*capture.Packet, err error) {
	for {
		p, err := r.Next()
		if err != nil {
			if _, again := r.Next(); again == nil {
				return packets, errors.New("a packet after an error")
			}
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return packets, err
		}
		kept := *p
		kept.Data, kept.Reception.Controls = bytes.Clone(p.Data), slices.Clone(p.Reception.Controls)
		packets = append(packets, &kept)
	}
}

func readText(t testing.TB, text string, o ReadOptions) reading {
	t.Helper()
	return read(t, strings.NewReader(text), o)
}

// mustRead reads an input without errors.
func mustRead(t testing.TB, r io.Reader, o ReadOptions) []*capture.Packet {
	t.Helper()
	got := read(t, r, o)
	if got.err != nil || len(got.doubts) > 0 {
		t.Fatalf("error %v, doubts %q", got.err, got.doubts)
	}
	return got.packets
}

// kind returns a kind of socket that must exist.
func kind(t testing.TB, name string) *capture.Kind {
	t.Helper()
	k, ok := capture.KindByName(name)
	if !ok {
		t.Fatalf("no kind %q", name)
	}
	return k
}

// dumpText is the dump of a packet of which data was printed, with a prefix before each
// line.
func dumpText(prefix, head string, length int, data []byte) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s%d bytes, dumping\n", prefix, head, length)
	for i, c := range data {
		fmt.Fprintf(&b, "%s\tbyte[%d]=0x%x\n", prefix, i, c)
	}
	return b.String() + prefix + "\n"
}

const newPrefix = "              nc-2834    [001] ..s31  1234.567890: bpf_trace_printk: "

func kernelText(data []byte) string {
	return dumpText(newPrefix, text.KernelHead, len(data), data[:min(len(data), text.Dumped)])
}

func userText(data []byte) string { return dumpText("", text.UserHead, len(data), data) }

// wantPackets compares packets' bytes and lengths, each as "length:hex;comment".
func wantPackets(t *testing.T, packets []*capture.Packet, want ...string) {
	t.Helper()
	if len(packets) != len(want) {
		t.Fatalf("%d packets, want %d", len(packets), len(want))
	}
	for i, p := range packets {
		_, comment, _ := strings.Cut(p.Comment, "; ")
		if p.Interface.View == capture.ViewUser {
			comment = p.Comment
		}
		if got := fmt.Sprintf("%d:%x;%s", p.Len, p.Data, comment); got != want[i] {
			t.Errorf("packet %d is %q, want %q", i, got, want[i])
		}
	}
}

// pieces is a reader that returns at most n bytes at a time.
type pieces struct {
	r io.Reader
	n int
}

func (p pieces) Read(b []byte) (int, error) { return p.r.Read(b[:min(len(b), p.n)]) }

// ones is a text of n bytes that is never completely in memory.
type ones struct {
	head string
	n    int64
	tail string
}

func (o *ones) Read(b []byte) (int, error) {
	n := 0
	switch {
	case o.head != "":
		n = copy(b, o.head)
		o.head = o.head[n:]
	case o.n > 0:
		n = int(min(int64(len(b)), o.n))
		for i := range b[:n] {
			b[i] = '1'
		}
		o.n -= int64(n)
	case o.tail != "":
		n = copy(b, o.tail)
		o.tail = o.tail[n:]
	default:
		return 0, io.EOF
	}
	return n, nil
}
