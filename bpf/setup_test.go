package bpf

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// setUp reads a program of setup.c and sets it up.
func setUp(tb testing.TB, path, program string, steps ...func(*Verdict) error) (*Verdict, error) {
	tb.Helper()
	v := mustRead(tb, path, program)
	for _, step := range steps {
		if err := step(v); err != nil {
			return nil, err
		}
	}
	return v, nil
}

func size(name string, n uint32) func(*Verdict) error {
	return func(v *Verdict) error { return v.SetMapSize(name, n) }
}

func put(name, key, value string) func(*Verdict) error {
	return func(v *Verdict) error { return v.PutEntry(name, key, value) }
}

func file(name, text string) func(*Verdict) error {
	return func(v *Verdict) error { return v.PutEntries(name, strings.NewReader(text)) }
}

func set(name, value string) func(*Verdict) error {
	return func(v *Verdict) error { return v.SetVariable(name, value) }
}

// TestSetup asks filters of what was set up, alone and inside of the tap.
func TestSetup(t *testing.T) {
	t.Parallel()
	requirePrivilege(t)
	path := object(t, "setup", "-g")
	for _, test := range []struct {
		name, program string
		packet        string
		want          int32
		steps         []func(*Verdict) error
	}{
		{"nothing", "rule", "abcd", 1, []func(*Verdict) error{size("rules", 1)}},
		{"a struct", "rule", "abcd", 1_009_312, []func(*Verdict) error{
			size("rules", 1), put("rules", "0x4", `{"keep":12,"flags":"3","ports":[8,9],"name":"ab"}`)}},
		{"its bytes", "rule", "abcd", 1_009_312, []func(*Verdict) error{
			size("rules", 2), put("rules", "hex="+hostHex(4), "hex=03000000"+hostHex(12)+hostHex16(8)+hostHex16(9)+"0000"+"6162000000000000"+"0000")}},
		{"a file", "rule", "abcd", 13, []func(*Verdict) error{
			size("rules", 8), file("rules", `{"5": {"keep": 1}, "4": {"keep": 13}}`)}},
		{"as bpftool prints it", "number", "abcd", 0x0201, []func(*Verdict) error{
			file("numbers", `[{"key":2,"value":["0x01","0x02","0x00","0x00","0x00","0x00","0x00","0x00"],"formatted":{}}]`)}},
		{"a list", "number", "abcd", 30, []func(*Verdict) error{file("numbers", `[10, 20, 30]`)}},
		{"the later one", "number", "abcd", 31, []func(*Verdict) error{file("numbers", `[10, 20, 30]`), put("numbers", "2", "31")}},
		{"a prefix", "prefix", "\x0a\x01\x02\x03", 7, []func(*Verdict) error{put("prefixes", "10.0.0.0/8", "7"), put("prefixes", "10.1.2.4/32", "8")}},
		{"a longer one", "prefix", "\x0a\x01\x02\x04", 8, []func(*Verdict) error{put("prefixes", "10.0.0.0/8", "7"), put("prefixes", "10.1.2.4/32", "8")}},
		{"variables", "variables", "abcd", 3, nil},
		{"all of them", "variables", "abcd", 7 - 5 + 100 + 1000, []func(*Verdict) error{
			set("mode", "MODE_KEEP"), set("offset", "-5"), set("plain", "true"), set("wide", "1000"), set("name", "eth0")}},
		{"no table", "jump", "abcd", 3, nil},
		{"a table", "jump", "abcd", 42, []func(*Verdict) error{put("jumps", "1", "target")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			v, err := setUp(t, path, test.program, test.steps...)
			if err != nil {
				t.Fatal(err)
			}
			if got, _, err := mustRunner(t, v).Run([]byte(test.packet), Context{}); err != nil || got != test.want {
				t.Errorf("alone: %d, want %d: %v", got, test.want, err)
			}
			alone, err := openSocketRunner(v, mapsOf(t, v))
			if err != nil {
				t.Fatal(err)
			}
			defer alone.close()
			if got, err := alone.run([]byte(test.packet)); err != nil || got != test.want {
				t.Errorf("inside of the tap: %d, want %d: %v", got, test.want, err)
			}
		})
	}
}

// TestSetupRefuses names what cannot be.
func TestSetupRefuses(t *testing.T) {
	t.Parallel()
	path := object(t, "setup", "-g")
	for _, test := range []struct {
		name string
		step func(*Verdict) error
		want string
	}{
		{"no such map", size("none", 1), "has no map none, but events, jumps, numbers, prefixes, rules"},
		{"a section", size(".rodata", 1), "has no map .rodata, but events"},
		{"no room at all", size("rules", 0), "room for at least one entry"},
		{"no such variable", set("none", "1"), "has no global variable none, but mode, name, offset, plain, wide"},
		{"no number", set("offset", "x"), `"x" is no number for short, which has 2 bytes: give a whole number from -32768 to 65535 (0x for hexadecimal), or hex= and all of its 2 bytes`},
		{"too large", set("offset", "65536"), "65536 is too large for short, which has 2 bytes: give a whole number from -32768 to 65535"},
		{"too small", set("offset", "-32769"), "-32769 is too small for short, which has 2 bytes: give a whole number"},
		{"more than 64 bits", set("wide", "18446744073709551616"), "18446744073709551616 is too large for unsigned long"},
		{"less than 64 bits", set("wide", "-9223372036854775809"), "-9223372036854775809 is too small for unsigned long"},
		{"no enumerator", set("mode", "MODE_NONE"), `"MODE_NONE" is no number for enum mode, which has 4 bytes: give a whole number from -2147483648 to 4294967295 (0x for hexadecimal), or hex= and all of its 4 bytes, two digits each, or a name such as MODE_DROP, MODE_KEEP, MODE_OTHER`},
		{"a key that does not fit", put("rules", "4294967296", `{"keep":1}`), "the key: 4294967296 is too large for unsigned int, which has 4 bytes: give a whole number from -2147483648 to 4294967295"},
		{"a fraction", put("numbers", "1", "1.5"), `the value: "1.5" is no number for unsigned long`},
		{"a word for a struct", put("rules", "1", "all"), `the value: "all" is no value for struct rule, which has 24 bytes: give its fields, such as {"flags":1}, or hex= and all of its 24 bytes`},
		{"a negative index", put("numbers", "-1", "1"), "the index -1: the map numbers ends at 3: give a whole number from 0 to 3, of 4 bytes"},
		{"a key of no number's size", put("prefixes", "5x", "1"), `the key: "5x" is no value for struct prefix, which has 8 bytes: give its fields, such as {"length":1}`},
		{"a field that does not fit", put("rules", "1", `{"flags":256}`), "256 is too large for unsigned char, which has 1 byte: give a whole number from -128 to 255"},
		{"too long", set("name", "123456789"), `"123456789" has more than 8 characters`},
		{"an address for a number", set("offset", "10.0.0.1"), "10.0.0.1 has 4 bytes, and short 2: give a whole number"},
		{"no hexadecimal", set("offset", "hex=xy"), "hex=xy is not 2 bytes"},
		{"without a size", put("rules", "1", `{"keep":1}`), "the map rules has room for 0 entries, and 1 are to be in it"},
		{"too many", file("prefixes", `[{"key":"1.0.0.0/8","value":1},{"key":"2.0.0.0/8","value":1},{"key":"3.0.0.0/8","value":1},{"key":"4.0.0.0/8","value":1},{"key":"5.0.0.0/8","value":1}]`), "room for 4 entries, and 5"},
		{"no such field", put("rules", "1", `{"kept":1}`), "struct rule has no field kept"},
		{"a number for a struct", put("rules", "1", "1"), "1 is a number, and it is to be struct rule, which has 24 bytes: give its fields"},
		{"an index behind the end", put("numbers", "4", "1"), "the index 4: the map numbers ends at 3"},
		{"a map of events", put("events", "1", "1"), "a map of type RingBuf takes no entries"},
		{"no program", put("jumps", "0", "nobody"), "a tail call goes to a program of the same object, and nobody is none of"},
		{"itself", put("jumps", "0", "rule"), "a tail call cannot go to rule"},
		{"no JSON", file("numbers", `[1, 2`), "it is no JSON"},
		{"more than JSON", file("numbers", `[1] 2`), "there is more behind the JSON"},
		{"no entries", file("rules", `[1]`), "element 0 is no object with key and value"},
		{"not even a list", file("rules", `1`), "neither an object of keys and values nor a list"},
	} {
		_, err := setUp(t, path, "rule", test.step)
		var refused *SetupError
		if err == nil || !strings.Contains(err.Error(), test.want) || !errors.As(err, &refused) {
			t.Errorf("%s: %v (%T), want %q", test.name, err, err, test.want)
		}
	}
	if _, err := setUp(t, path, "jump"); err != nil {
		t.Fatal(err)
	}
	if got := mustRead(t, path, "jump").EmptyTables(); len(got) != 1 || got[0] != "jumps" {
		t.Errorf("empty tables: %q", got)
	}
	if got := mustRead(t, object(t, "tailcall", "-g"), "tailcall").EmptyTables(); len(got) != 0 {
		t.Errorf("empty tables of a filled one: %q", got)
	}
}

// TestKernelOption asks for options that the kernel has, and has not. A kernel that does not tell its
// configuration is one that lacks something.
func TestKernelOption(t *testing.T) {
	t.Parallel()
	requirePrivilege(t)
	strong, weak := object(t, "option", "-g"), object(t, "weak", "-g")
	var missing *MissingError
	file, err := openKconfig()
	if err != nil {
		if _, err := ReadVerdict(weak, ""); !errors.As(err, &missing) || !strings.Contains(err.Error(), "/proc/config.gz is there to tell them") {
			t.Errorf("%v", err)
		}
		if _, err := OpenRunner(mustRead(t, strong, "")); !errors.As(err, &missing) {
			t.Errorf("%v", err)
		}
		return
	}
	file.Close()
	if _, err := OpenRunner(mustRead(t, strong, "")); !errors.As(err, &missing) || !strings.Contains(err.Error(), "needs CONFIG_EBPFDUMP_UNHEARD, an option that Linux ") {
		t.Errorf("%v", err)
	}
	v := mustRead(t, weak, "")
	if got, _, err := mustRunner(t, v).Run([]byte("abcd"), Context{}); err != nil || got != 99 {
		t.Errorf("alone: %d, %v", got, err)
	}
	inside, err := openSocketRunner(v, mapsOf(t, v))
	if err != nil {
		t.Fatal(err)
	}
	defer inside.close()
	if got, err := inside.run([]byte("abcd")); err != nil || got != 99 {
		t.Errorf("inside of the tap: %d, %v", got, err)
	}
}

// FuzzSetup sets up anything from anything.
func FuzzSetup(f *testing.F) {
	for _, seed := range []string{`{"keep":12,"flags":"3","ports":[8,9],"name":"ab"}`, "hex=0a000001", "10.0.0.0/8", "[fe80::1]", "-5", `[1,2,3]`, `[{"key":["0x1"],"value":2}]`, "02:00:00:00:00:01", "true", `"x"`} {
		f.Add(seed)
	}
	char := &btf.Int{Name: "char", Size: 1}
	word := &btf.Int{Name: "unsigned int", Size: 4}
	types := []btf.Type{
		nil, word, char, &btf.Array{Type: char, Nelems: 8}, &btf.Array{Type: word, Nelems: 3}, &btf.Enum{Size: 4, Values: []btf.EnumValue{{Name: "A", Value: 1}}},
		&btf.Struct{Name: "s", Size: 8, Members: []btf.Member{{Name: "keep", Type: word}, {Name: "flags", Type: word, Offset: 32}, {Name: "beyond", Type: word, Offset: 64}}},
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, form := range types {
			length := 6
			if form != nil {
				length, _ = btf.Sizeof(form)
			}
			if b, err := encodeValue(form, length, parseValue(text)); err == nil && len(b) != length {
				t.Fatalf("%T: %d bytes, want %d", form, len(b), length)
			}
		}
		if entries, err := entriesOf([]byte(text), len(text)%2 == 0); err == nil {
			for _, e := range entries {
				if b, err := encodeValue(word, 4, e.key); err == nil && len(b) != 4 {
					t.Fatal(len(b))
				}
			}
		}
	})
}

// hostHex is a number of 32 bits as hexadecimal digits in native byte order, hostHex16 one of 16.
func hostHex(n uint32) string   { return hex.EncodeToString(binary.NativeEndian.AppendUint32(nil, n)) }
func hostHex16(n uint16) string { return hex.EncodeToString(binary.NativeEndian.AppendUint16(nil, n)) }

// mapsOf are the maps of a filter that are to be shared.
func mapsOf(t *testing.T, v *Verdict) *ebpf.Collection {
	t.Helper()
	collection, err := v.load(false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(collection.Close)
	return collection
}
