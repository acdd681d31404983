package capture_test

import (
	"regexp"
	"testing"

	"github.com/ebpfdump/ebpfdump/internal/capability"
	"github.com/ebpfdump/ebpfdump/internal/testutil"

	"golang.org/x/sys/unix"
)

// The examples that need a kernel that permits them print what they say. It is no
// parallel test: stdout belongs to it.
func TestExamplesPrint(t *testing.T) {
	if !capability.Held(unix.CAP_BPF) {
		testutil.Missing(t, "needs CAP_BPF")
	}
	for _, test := range []struct {
		name, want string
		example    func()
	}{
		{"Attach", `^the server read "hello"\nudp:kernel: 1 received, 0 dropped\nudp:net: 1 received, 0 dropped\n$`, ExampleAttach},
		{"Open", `^udp:kernel packet 1, 127.0.0.1:\d+ to 127.0.0.1:\d+, 19 bytes \n` +
			`udp:user packet 1, 127.0.0.1:\d+ to 127.0.0.1:\d+, 11 bytes \n$`, ExampleOpen},
	} {
		if got := testutil.Printed(t, test.example); !regexp.MustCompile(test.want).MatchString(got) {
			t.Errorf("Example%s prints:\n%s", test.name, got)
		}
	}
}
