package main

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/convert"
	"github.com/ebpfdump/ebpfdump/internal/explain"
	"github.com/ebpfdump/ebpfdump/internal/mutation"
	"github.com/ebpfdump/ebpfdump/internal/survey"
)

// TestMutants reads damaged files of every kind that a command reads, besides the inputs
// of convert. None of these tests is parallel, since they measure allocations.
func TestMutants(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mutant")
	// written puts a mutant where its reader wants it.
	written := func(t *testing.T, file []byte) string {
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tt := range []struct {
		form  string
		bound mutation.Bound
		seeds [][]byte
		read  func(t *testing.T, file []byte) int
	}{
		{"explain", mutation.Bound{Fixed: 1 << 20, PerByte: 1 << 9}, captures(t), func(t *testing.T, file []byte) int {
			source, err := convert.Open(bytes.NewReader(file), nil, convert.ReadOptions{CutOff: true})
			if err != nil {
				return 0
			}
			e, _ := explain.Read(source, explain.Options{Packets: 20})
			if e == nil {
				return 0
			}
			if err := e.WriteText(io.Discard, true, explain.Columns); err != nil {
				t.Fatal(err)
			}
			if err := e.WriteJSON(io.Discard); err != nil {
				t.Fatal(err)
			}
			if err := e.WriteHTML(io.Discard); err != nil {
				t.Fatal(err)
			}
			return int(e.Report.Packets)
		}},
		{"survey", mutation.Bound{Fixed: 2 << 20, PerByte: 1 << 8}, [][]byte{surveyed(t)}, func(t *testing.T, file []byte) int {
			report, err := survey.ReadJSON(bytes.NewReader(file))
			if err != nil {
				return 0
			}
			if err := report.WriteText(io.Discard); err != nil {
				t.Fatal(err)
			}
			if err := report.WriteHTML(io.Discard); err != nil {
				t.Fatal(err)
			}
			differences, err := survey.Compare(report, report)
			if err != nil || len(differences) > 0 {
				t.Fatal(differences, err)
			}
			return len(report.Sockets)
		}},
		{"classic filter", mutation.Bound{Fixed: 1 << 18, PerByte: 1 << 10}, [][]byte{
			[]byte("4\n48 0 0 8\n21 0 1 48\n6 0 0 100\n6 0 0 0\n"),
			[]byte("{ 0x30, 0, 0, 0x00000008 },\n{ 0x15, 0, 1, 0x00000030 },\n{ 0x6, 0, 0, 0x00000064 },\n{ 0x6, 0, 0, 0x00000000 },\n"),
		}, func(t *testing.T, file []byte) int {
			_, _ = bpf.ReadClassic(written(t, file))
			return 0
		}},
		{"expectations", mutation.Bound{Fixed: 1 << 16, PerByte: 1 << 8}, [][]byte{
			[]byte("# of a filter\n1 keep\n2 drop # a comment\n3 0x20\n18446744073709551615 -1\n"),
		}, func(t *testing.T, file []byte) int {
			expected, _ := readExpectations(written(t, file))
			return len(expected)
		}},
		// debug/elf allocates the claimed size of a section in chunks of up to 10 MiB.
		{"filter object", mutation.Bound{Fixed: 32 << 20, PerByte: 1 << 8}, [][]byte{object(t)}, func(t *testing.T, file []byte) int {
			_, _ = bpf.ReadVerdict(written(t, file), "")
			return 0
		}},
	} {
		t.Run(tt.form, func(t *testing.T) { mutation.Test(t, tt.bound, tt.seeds, tt.read) })
	}
}

// captures are the samples, with the large ones reduced to some packets.
func captures(t *testing.T) (files [][]byte) {
	t.Helper()
	paths, err := filepath.Glob("../../samples/*.pcapng")
	if err != nil || len(paths) == 0 {
		t.Fatal("no samples", err)
	}
	for _, path := range paths {
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		end := 0
		for end < min(len(file), 8<<10) {
			end += int(binary.LittleEndian.Uint32(file[end+4:]))
		}
		files = append(files, file[:end])
	}
	return files
}

// surveyed is a part of a survey's report.
func surveyed(t *testing.T) []byte {
	t.Helper()
	file, err := os.ReadFile("../../samples/survey/6.1.json")
	if err != nil {
		t.Fatal(err)
	}
	report, err := survey.ReadJSON(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := report.Only(report.Names()[:3]).WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// object is a filter compiled by clang, with all its sections.
func object(t *testing.T) []byte {
	t.Helper()
	file, err := os.ReadFile("../../bpf/tap_bpfel.o")
	if err != nil {
		t.Fatal(err)
	}
	return file
}
