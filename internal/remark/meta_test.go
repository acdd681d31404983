package remark

import (
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/capture"
)

// The sentence about a Meta is read back, whatever else the comment says.
func TestMetaComesBack(t *testing.T) {
	t.Parallel()
	for text, m := range map[string]capture.Meta{
		"": {},
		"vlan=100 (tag 8100 2064 beside the bytes)":                                         {VLANProto: 0x8100, VLANTCI: 0x2064},
		"vlan=0 (tag 88a8 0000 beside the bytes), mark=0x1":                                 {VLANProto: 0x88a8, Mark: 1},
		"mark=0xffffffff, priority=4294967295":                                              {Mark: 1<<32 - 1, Priority: 1<<32 - 1},
		"gso=45 segments of 1448 bytes":                                                     {GSOSegs: 45, GSOSize: 1448},
		"vlan=4095 (tag 8100 ffff beside the bytes), priority=6, gso=0 segments of 1 bytes": {VLANProto: 0x8100, VLANTCI: 0xffff, Priority: 6, GSOSize: 1},
	} {
		if got := string(AppendMeta(nil, &m)); got != text || len(got)+len(between) >= MetaSize {
			t.Errorf("%+v is %q, want %q", m, got, text)
		}
		for _, comment := range []string{"", "verdict=0 (dropped by the filter)", "a; b", "two\nlines", "ends in a line\n", "; ", "vlan=7"} {
			if text == "" && comment == "vlan=7" {
				continue
			}
			written := string(AppendComment(nil, comment, &m))
			rest, read, ok := CutMeta(written)
			if rest != comment || read != m || ok != (text != "") {
				t.Errorf("%q is read as %q and %+v", written, rest, read)
			}
		}
	}
}

// Other tools put their comments after ours, or before it.
func TestMetaAmongOthers(t *testing.T) {
	t.Parallel()
	const said = "mark=0x2a"
	for comment, want := range map[string]string{
		"a note\nverdict=3; " + said + "\nanother": "a note\nverdict=3\nanother",
		said + "\nanother":                         "another",
		"a note\n" + said:                          "a note",
		"a note\n" + said + "\nanother":            "a note\nanother",
	} {
		if rest, m, ok := CutMeta(comment); !ok || rest != want || m.Mark != 42 {
			t.Errorf("%q is read as %q and %+v", comment, rest, m)
		}
	}
	for _, comment := range []string{
		"mark=0x2A", "mark=42", "mark=0x0", "mark=0x123456789", "mark=0x2a, ", "priority=6, mark=0x2a", said + " ", said + "; more",
		"vlan=7 (tag 8100 0064 beside the bytes)", "vlan=100 (tag 0000 0064 beside the bytes)", "gso=3 segments of 0 bytes", ",", "=",
	} {
		if rest, m, ok := CutMeta(comment); ok || rest != comment || m != (capture.Meta{}) {
			t.Errorf("%q is read as %q and %+v", comment, rest, m)
		}
	}
}

// For any comment, no word is lost, and what is taken for a Meta is written again in the
// same words.
func FuzzCutMeta(f *testing.F) {
	f.Add("vlan=100 (tag 8100 2064 beside the bytes), mark=0x2a, priority=6, gso=3 segments of 1448 bytes")
	f.Add("verdict=0 (dropped by the filter); mark=0x1\n\nmore")
	f.Fuzz(func(t *testing.T, comment string) {
		rest, m, ok := CutMeta(comment)
		if !ok {
			if rest != comment {
				t.Errorf("%q became %q", comment, rest)
			}
			return
		}
		said := string(AppendMeta(nil, &m))
		if !strings.Contains(comment, said) || len(rest)+len(said) > len(comment) {
			t.Errorf("%q is read as %q and %q", comment, rest, said)
		}
		if strings.Contains(rest, "=") {
			return // it may be about a second Meta
		}
		written := string(AppendComment(nil, rest, &m))
		if again, m2, ok := CutMeta(written); !ok || m2 != m || again != rest {
			t.Errorf("%q is read as %q and %+v", written, again, m2)
		}
	})
}

func FuzzMeta(f *testing.F) {
	f.Add("verdict=0 (dropped by the filter)", uint16(0x8100), uint16(0x2064), uint32(42), uint32(6), uint32(3), uint32(1448))
	f.Fuzz(func(t *testing.T, comment string, proto, tci uint16, mark, priority, segments, size uint32) {
		m := capture.Meta{VLANProto: proto, VLANTCI: tci, Mark: mark, Priority: priority, GSOSegs: segments, GSOSize: size}
		if proto == 0 {
			m.VLANTCI = 0
		}
		if size == 0 {
			m.GSOSegs = 0
		}
		if _, _, ok := CutMeta(comment); ok {
			return
		}
		rest, read, ok := CutMeta(string(AppendComment(nil, comment, &m)))
		if rest != comment || read != m || ok != HasMeta(&m) {
			t.Errorf("%q and %+v are read as %q and %+v", comment, m, rest, read)
		}
	})
}
