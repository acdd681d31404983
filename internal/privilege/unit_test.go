package privilege

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// The systemd unit has what a capture of other processes with all views needs, and no more.
func TestUnit(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../packaging/ebpfdump@.service")
	if err != nil {
		t.Fatal(err)
	}
	want := Names(Use{Command: "capture", Join: true, Wire: true}.Needs())
	slices.Sort(want)
	for _, setting := range []string{"AmbientCapabilities", "CapabilityBoundingSet"} {
		_, rest, found := strings.Cut(string(text), "\n"+setting+"=")
		line, _, _ := strings.Cut(rest, "\n")
		got := strings.Fields(line)
		slices.Sort(got)
		if !found || !slices.Equal(got, want) {
			t.Errorf("%s is %v, want %v", setting, got, want)
		}
	}
}
