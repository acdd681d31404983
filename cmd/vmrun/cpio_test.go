package main

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// testArchive has an entry of each kind.
func testArchive(t *testing.T) []byte {
	t.Helper()
	host := t.TempDir()
	err := errors.Join(
		os.Mkdir(filepath.Join(host, "sub"), 0o750),
		os.WriteFile(filepath.Join(host, "sub", "odd"), []byte("12345"), 0o640),
		os.WriteFile(filepath.Join(host, "empty"), nil, 0o600),
		os.Symlink("sub/odd", filepath.Join(host, "link")),
	)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	a := newArchive(&b)
	err = errors.Join(
		a.dir("/tmp", 0o777|fs.ModeSticky),
		a.dir("/tmp", 0o700),
		a.charDevice("/dev/console", 0o600, 5, 1),
		a.content("/etc/hosts", 0o644, "localhost\n"),
		a.tree(host, "/deep/er"),
		a.close(),
	)
	if err != nil {
		t.Fatal(err)
	}
	if a.size != int64(b.Len()) {
		t.Errorf("size is %d, of %d bytes", a.size, b.Len())
	}
	return b.Bytes()
}

// readArchive is a reader written from the format's description, independently of the
// writer.
func readArchive(t *testing.T, b []byte) (names []string, entries map[string]entry) {
	t.Helper()
	entries = map[string]entry{}
	offset := 0
	take := func(n int) []byte {
		if offset+n > len(b) {
			t.Fatalf("the archive ends at %d, within a member", len(b))
		}
		taken := b[offset : offset+n]
		offset += (n + 3) &^ 3
		return taken
	}
	for {
		if start := b[offset:]; !bytes.HasPrefix(start, []byte("070701")) {
			t.Fatalf("no header at %d", offset)
		}
		var field [13]uint32
		for i := range field {
			v, err := strconv.ParseUint(string(b[offset+6+8*i:offset+14+8*i]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			field[i] = uint32(v)
		}
		name := string(take(110 + int(field[11]))[110:])
		name, terminated := strings.CutSuffix(name, "\x00")
		if !terminated {
			t.Fatalf("the name %q has no end", name)
		}
		body := take(int(field[6]))
		if name == "TRAILER!!!" {
			if offset != len(b) {
				t.Errorf("%d bytes after the trailer", len(b)-offset)
			}
			return names, entries
		}
		names = append(names, name)
		entries[name] = entry{
			mode: field[1], mtime: int64(field[5]), size: int64(field[6]),
			major: field[9], minor: field[10], body: bytes.NewReader(body),
		}
	}
}

var wantNames = "tmp dev dev/console etc etc/hosts deep deep/er deep/er/empty deep/er/link deep/er/sub deep/er/sub/odd"

func TestArchive(t *testing.T) {
	names, entries := readArchive(t, testArchive(t))
	if got := strings.Join(names, " "); got != wantNames {
		t.Fatalf("the names are\n%s, want\n%s", got, wantNames)
	}
	for _, want := range []struct {
		name, body   string
		mode         uint32
		major, minor uint32
	}{
		{name: "tmp", mode: 0o041777},
		{name: "dev", mode: 0o040755},
		{name: "dev/console", mode: 0o020600, major: 5, minor: 1},
		{name: "etc/hosts", mode: 0o100644, body: "localhost\n"},
		{name: "deep/er/empty", mode: 0o100600},
		{name: "deep/er/link", mode: 0o120777, body: "sub/odd"},
		{name: "deep/er/sub", mode: 0o040750},
		{name: "deep/er/sub/odd", mode: 0o100640, body: "12345"},
	} {
		got := entries[want.name]
		body, _ := io.ReadAll(got.body)
		if string(body) != want.body || got.mode != want.mode || got.major != want.major || got.minor != want.minor {
			t.Errorf("%s is %q, mode %o, device %d:%d; want %q, %o, %d:%d", want.name,
				body, got.mode, got.major, got.minor, want.body, want.mode, want.major, want.minor)
		}
	}
}

func TestArchiveWithCpio(t *testing.T) {
	list := exec.Command(testutil.RequireTool(t, "cpio"), "-t", "--quiet")
	list.Stdin = bytes.NewReader(testArchive(t))
	output, err := list.CombinedOutput()
	if err != nil {
		t.Fatalf("cpio: %v: %s", err, output)
	}
	if got := strings.Join(strings.Fields(string(output)), " "); got != wantNames {
		t.Errorf("cpio lists\n%s, want\n%s", got, wantNames)
	}
}

func TestArchiveRefuses(t *testing.T) {
	a := newArchive(io.Discard)
	if err := a.add(entry{name: "short", mode: typeRegular, size: 3, body: strings.NewReader("12")}); !errors.Is(err, io.EOF) {
		t.Errorf("a file that shrank gives %v, want %v", err, io.EOF)
	}
	if err := a.add(entry{name: "huge", mode: typeRegular, size: 1 << 32}); err == nil {
		t.Error("a file of 4 GiB is accepted")
	}
}
