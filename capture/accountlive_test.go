package capture

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// The same of a joined process: it, and not we, sets the room and reads.
func TestAccountOfJoined(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		buffer int
		half   bool
		closed bool // by the end
	}{
		{"all, much room", largeBuffer, false, false},
		{"all, little room", smallBuffer, false, false},
		{"half, much room", largeBuffer, true, false},
		{"half, little room", smallBuffer, true, false},
		{"half, much room, closed", largeBuffer, true, true},
		{"half, little room, closed", smallBuffer, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			for range 2 {
				floodJoined(t, test.buffer, test.half, test.closed)
			}
		})
	}
}

func floodJoined(t *testing.T, buffer int, half, closed bool) {
	t.Helper()
	process := startTarget(t, "sink", fmt.Sprint(buffer))
	config := JoinConfig{PIDs: []int{process.Process.Pid}, Options: Options{RingSize: 16 << 20}}
	filtered := uint64(0)
	if half {
		config.Verdict = oddOnes(t, 8)
	}
	l, err := Join(config)
	if err != nil {
		t.Fatal(err)
	}
	var sent uint64
	sink := runLive(t, l, func() {
		sent = flood(t, process.ns, sockaddr(netip.MustParseAddrPort(process.address)), flooded, 8)
		if half {
			filtered = sent / 2
		}
		// On a slow machine the process may make a pause in its reading.
		for range 10 {
			quiet(t, l)
			counts, err := l.Counts()
			if err != nil {
				t.Fatal(err)
			}
			if counts.Delivered+filtered+fullDrops(t, process.ns) >= sent {
				break
			}
		}
		if closed {
			fmt.Fprintln(process.stdin)
			if line := process.line(t); line != "closed" {
				t.Errorf("the process says %q", line)
			}
		}
	})
	all, err := l.Statistics()
	a := accountOf(t, all, err)
	counts, err := l.Counts()
	if err != nil {
		t.Fatal(err)
	}
	if lost := counts.Tap.Lost() + counts.Calls.Lost(); lost > 0 {
		t.Fatalf("%d lost: the test needs larger rings", lost)
	}
	if a.Seen != sent || a.Filtered != filtered || a.Before+a.Unknown+a.After+a.Unseen != 0 {
		t.Errorf("sent %d: %s", sent, a)
	}
	full := fullDrops(t, process.ns)
	switch {
	case !closed && (a.Queue != full || a.Unread+a.Closed != 0):
		t.Errorf("the kernel counts %d drops for want of room: %s", full, a)
	case closed && (a.Queue+a.Unread != full || a.Closed != 1):
		t.Errorf("closed, and the kernel counts %d drops for want of room: %s", full, a)
	case (buffer == smallBuffer) != (full > 0):
		t.Errorf("with room for %d bytes: %s", buffer, a)
	}
	if said := strings.Contains(a.String(), "could say what they dropped: 1,"); said != (a.Unread > 0) {
		t.Errorf("%s", a)
	}
	if a.Unread == 0 {
		checkViews(t, all)
	}
	if user := uint64(len(sink.view(ViewUser))); user != a.Delivered+counts.Empty {
		t.Errorf("%d packets in the user view, %d empty: %s", user, counts.Empty, a)
	}
	t.Log(a)
}
