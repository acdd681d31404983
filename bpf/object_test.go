package bpf

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// object finds the BPF object of a filter's source, in testdata/filters or
// among the samples. flag is -g or, for an object without BTF, -g0.
// EBPFDUMP_OBJECTS names a folder of objects that were made beforehand, for
// machines without a compiler (see the Makefile).
func object(tb testing.TB, name, flag string) string {
	tb.Helper()
	file := name + strings.TrimPrefix(flag, "-g") + ".o"
	if made := os.Getenv("EBPFDUMP_OBJECTS"); made != "" {
		path := filepath.Join(made, file)
		if _, err := os.Stat(path); err != nil {
			tb.Fatal(err)
		}
		return path
	}
	clang := testutil.RequireTool(tb, "clang")
	source := filepath.Join("testdata", "filters", name+".c")
	if _, err := os.Stat(source); errors.Is(err, fs.ErrNotExist) {
		source = filepath.Join("..", "samples", "filters", name+".c")
	}
	path := filepath.Join(tb.TempDir(), file)
	machine, err := exec.Command("uname", "-m").Output()
	if err != nil {
		tb.Fatal(err)
	}
	compile := exec.Command(clang, "-O2", "-Wall", "-Werror", flag, "-target", "bpf", "-mcpu=v2",
		"-idirafter", "/usr/include/"+strings.TrimSpace(string(machine))+"-linux-gnu", "-c", source, "-o", path)
	if out, err := compile.CombinedOutput(); err != nil {
		tb.Fatalf("%v\n%s", err, out)
	}
	return path
}

// mustRead reads a verdict whose object is in order.
func mustRead(tb testing.TB, path, program string) *Verdict {
	tb.Helper()
	v, err := ReadVerdict(path, program)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// What stands in the way of reading a filter.
func TestReadVerdictRefuses(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	several := object(t, "several", "-g")
	content, err := os.ReadFile(several)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, path, program string
		choice              bool // another program would do
		want                string
	}{
		{"missing", filepath.Join(folder, "none.o"), "", false, "none.o: no such file or directory"},
		{"a folder", folder, "", false, "is a directory"},
		{"empty", write("empty.o", ""), "", false, "empty.o is no ELF object: compile its source with " + "clang -O2 -g -target bpf -idirafter /usr/include/$(uname -m)-linux-gnu -c"},
		{"a source", write("x.c", "int main;"), "", false, "x.c is no ELF object"},
		{"half an object", write("half.o", string(content[:100])), "", false, "half.o is a damaged ELF object"},
		{"of another machine", exe, "", false, "and not for BPF: compile its source"},
		{"no types", object(t, "clash", "-g0"), "", false, "has maps without their types: " + howToCompile},
		{"which one", several, "", true, "has several socket filters, first, second: say which one, such as " + several + ":first"},
		{"none of that name", several, "third", true, "has no program third, but first (a socket filter), other (of type XDP), second (a socket filter), untyped ("},
		{"another type", several, "other", true, "several.o:other is of type XDP, and a socket takes only a socket filter"},
		{"no type and no name", object(t, "untyped", "-g"), "", true, `has no socket filter, but untyped (of no known type, section "firewall"): name the one that is meant, such as `},
		{"a selector", object(t, "narrow", "-g"), "", true, "(of type SkReuseport): a program of this type chooses a socket of a reuseport group, and is no filter"},
		{"no filter", object(t, "xdp", "-g"), "", true, `has no socket filter, but pass (of type XDP): put SEC("socket") before the filter's function`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := ReadVerdict(test.path, test.program)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
			var choice *ChoiceError
			if errors.As(err, &choice) != test.choice {
				t.Errorf("%T", err)
			}
		})
	}
}

// A damaged object is an error, whatever the damage.
func TestReadVerdictDamaged(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile(object(t, "clash", "-g"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "damaged.o")
	for at := 16; at < len(content); at += 97 {
		damaged := append([]byte(nil), content...)
		damaged[at] ^= 0xff
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if v, err := ReadVerdict(path, ""); err == nil && v == nil {
			t.Fatalf("byte %d: no verdict and no error", at)
		}
	}
}
