package capture

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/confine"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// targetConfined captures a probe of a kind and protocol, with nothing but the
// capabilities that the session says it needs, and prints them and what it got.
func targetConfined(args []string) error {
	kind, _ := KindByName(args[0])
	protocol, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	namespace, err := NewNamespace()
	if err != nil {
		return err
	}
	s, err := Open(Config{Kind: kind, Protocol: protocol, Namespace: namespace, Options: Options{RingSize: 1 << 20}})
	if err != nil {
		return err
	}
	needs := s.Capabilities(true)
	if err := confine.Keep(needs...); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx, &memory{}) }()
	err = s.Probe(ctx)
	cancel()
	if rerr := <-done; err == nil {
		err = rerr
	}
	if err != nil {
		return err
	}
	counts, err := s.Counts()
	fmt.Println(counts.Tap.Seen > 0, counts.Delivered > 0, strings.Trim(fmt.Sprint(needs), "[]"))
	return err
}

// What a session says it needs is enough to the end, and no more than the table
// in REFERENCE.md says.
func TestCapabilities(t *testing.T) {
	t.Parallel()
	testutil.RequirePrivilege(t)
	for _, test := range []struct {
		kind     string
		protocol int
		may      []int
	}{
		{"udp", 0, nil},
		{"tcp", 0, nil},
		{"tcp6", 0, nil},
		{"raw", unix.IPPROTO_UDP, nil},
		{"raw", unix.IPPROTO_ICMP, []int{unix.CAP_NET_RAW}},
		{"raw6", unix.IPPROTO_ICMPV6, []int{unix.CAP_NET_RAW}},
		{"icmp", 0, nil},
		{"packet", 0, nil},
		{"unix-dgram", 0, nil},
		{"netlink", 0, []int{unix.CAP_NET_ADMIN}},
	} {
		t.Run(fmt.Sprint(test.kind, " ", test.protocol), func(t *testing.T) {
			t.Parallel()
			cmd := exec.Cmd{Path: "/proc/self/exe", Args: []string{targetName, "confined", test.kind, strconv.Itoa(test.protocol)}}
			var complaints strings.Builder
			cmd.Stderr = &complaints
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %s", err, complaints.String())
			}
			fields := strings.Fields(string(out))
			if len(fields) < 2 || fields[0] != "true" || fields[1] != "true" {
				t.Errorf("nothing was captured: %s", out)
			}
			for _, field := range fields[min(len(fields), 2):] {
				capability, err := strconv.Atoi(field)
				if err != nil {
					t.Fatal(err)
				}
				if capability != unix.CAP_BPF && !slices.Contains(test.may, capability) {
					t.Errorf("capability %d is kept", capability)
				}
			}
		})
	}
}
