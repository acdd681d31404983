package capture_test

import (
	"io"
	"os"
	"regexp"
	"testing"

	"github.com/ebpfdump/ebpfdump/bpf"

	"golang.org/x/sys/unix"
)

// printed is what an example prints.
func printed(t *testing.T, example func()) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	stdout := os.Stdout
	os.Stdout = w
	defer func() { os.Stdout = stdout }()
	all := make(chan string)
	go func() {
		text, _ := io.ReadAll(r)
		all <- string(text)
	}()
	example()
	w.Close()
	return <-all
}

// The examples that need a kernel that permits them print what they say. It is no
// parallel test: stdout belongs to it.
func TestExamplesPrint(t *testing.T) {
	if !bpf.HasCapability(unix.CAP_BPF) {
		if os.Getenv("EBPFDUMP_REQUIRE") == "1" {
			t.Fatal("CAP_BPF is missing and EBPFDUMP_REQUIRE is set")
		}
		t.Skip("needs CAP_BPF")
	}
	for _, test := range []struct {
		name, want string
		example    func()
	}{
		{"Attach", `^the server read "hello"\nudp:kernel: 1 received, 0 dropped\nudp:net: 1 received, 0 dropped\n$`, ExampleAttach},
		{"Open", `^udp:kernel packet 1, 127.0.0.1:\d+ to 127.0.0.1:\d+, 19 bytes \n` +
			`udp:user packet 1, 127.0.0.1:\d+ to 127.0.0.1:\d+, 11 bytes \n$`, ExampleOpen},
	} {
		if got := printed(t, test.example); !regexp.MustCompile(test.want).MatchString(got) {
			t.Errorf("Example%s prints:\n%s", test.name, got)
		}
	}
}
