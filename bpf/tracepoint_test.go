package bpf

import "testing"

func TestParseBlocked(t *testing.T) {
	t.Parallel()
	call, ok := parseBlocked("232 0x4 0x7ffc1 0x200 0xffffffffffffffff 0x0 0x8 0x7ffe 0x7f31\n")
	want := readsBegunCall{Nr: 232, Arguments: [6]uint64{4, 0x7ffc1, 0x200, 1<<64 - 1, 0, 8}}
	if !ok || call != want {
		t.Errorf("%+v, %t", call, ok)
	}
	for _, text := range []string{"", "running\n", "-1 0x7ffe 0x7f31\n", "232 0x4", "x 0 0 0 0 0 0 0 0", "0 0 0 0 0 0 zero 0 0"} {
		if call, ok := parseBlocked(text); ok {
			t.Errorf("%q: %+v", text, call)
		}
	}
}

// The same tracepoint, of Linux 5.10 and of 6.18.
func TestParseOffset(t *testing.T) {
	t.Parallel()
	const before = "format:\n\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"
	for format, want := range map[string]uint32{
		before + "\tfield:char child_comm[16];\toffset:28;\tsize:16;\tsigned:1;\n\tfield:pid_t child_pid;\toffset:44;\tsize:4;\tsigned:1;\n":         44,
		before + "\tfield:__data_loc char[] child_comm;\toffset:16;\tsize:4;\tsigned:0;\n\tfield:pid_t child_pid;\toffset:20;\tsize:4;\tsigned:1;\n": 20,
	} {
		if got, err := parseOffset(format, "child_pid"); err != nil || got != want {
			t.Errorf("offset %d, %v, want %d", got, err, want)
		}
	}
	for _, format := range []string{"", before, "\tfield:pid_t child_pid;\toffset:x;", "\tfield:pid_t child_pid;\toffset:70000;"} {
		if got, err := parseOffset(format, "child_pid"); err == nil {
			t.Errorf("%q: offset %d", format, got)
		}
	}
}

func FuzzParseBlocked(f *testing.F) {
	f.Add("232 0x4 0x7ffc1 0x200 0xffffffffffffffff 0x0 0x8 0x7ffe 0x7f31\n")
	f.Add("running")
	f.Fuzz(func(t *testing.T, text string) {
		if call, ok := parseBlocked(text); ok && call.Nr < 0 {
			t.Errorf("%q is call %d", text, call.Nr)
		}
	})
}
