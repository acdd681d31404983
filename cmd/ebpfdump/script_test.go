package main

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

func TestMain(m *testing.M) {
	capture.Reenter()
	isolate()
	// Scripts wait for other programs most of their time.
	_ = flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0)))
	commands := maps.Clone(goPrograms)
	commands["ebpfdump"] = main
	testscript.Main(m, commands)
}

// isolate runs the tests again in a network namespace, with ports that mean nothing to
// Wireshark, and without other traffic.
func isolate() {
	const isolated = "EBPFDUMP_ISOLATED"
	if filepath.Base(os.Args[0]) == "ebpfdump" || os.Getenv(isolated) != "" {
		return
	}
	ns, err := capture.NewNamespace()
	if err != nil {
		return // nothing that needs privileges will run
	}
	os.Setenv(isolated, "1")
	err = ns.Do(func() error { return unix.Exec("/proc/self/exe", os.Args, os.Environ()) })
	panic(err)
}

// TestScript runs the command line as a user would, with a file for each concern.
func TestScript(t *testing.T) {
	t.Parallel()
	paths := make(map[string]string)
	for name, path := range map[string]string{"SAMPLES": "../../samples", "AWAIT": "testdata/await.sh"} {
		absolute, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		paths[name] = absolute
	}
	testscript.Run(t, testscript.Params{
		Dir:       "testdata/script",
		Condition: condition,
		Setup: func(env *testscript.Env) error {
			for name, path := range paths {
				env.Setenv(name, path)
			}
			env.Setenv("EVIL", evil)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":   status,
			"await":    await,
			"listen":   listen,
			"mode":     mode,
			"datagram": datagram,
			"frames":   frames,
			"compile":  compile,
			"hostile":  hostile,
			"inert":    inert,
		},
	})
}

// condition tells whether this machine can run a script. Under EBPFDUMP_REQUIRE=1 a
// missing requirement fails the test.
func condition(name string) (bool, error) {
	var ok bool
	switch {
	case name == "privileged":
		ok = testutil.Root(unix.CAP_SYS_ADMIN)
	case strings.HasPrefix(name, "tool:"):
		_, err := exec.LookPath(installed(strings.TrimPrefix(name, "tool:")))
		ok = err == nil
	default:
		return false, fmt.Errorf("unknown condition %q", name)
	}
	if !ok && testutil.Required() {
		return false, fmt.Errorf("%s is missing and EBPFDUMP_REQUIRE is set", name)
	}
	return ok, nil
}

// status N PROGRAM ARGS... runs a program that must exit with status N.
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N PROGRAM [ARGS...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// testTimeout is how long a test waits for what must happen eventually.
const testTimeout = 2 * time.Minute

// await FILE REGEXP waits until a file has a line that matches, and puts the
// first group, if any, into $MATCH.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE REGEXP")
	}
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			ts.Check(err)
		}
		if groups := re.FindSubmatch(text); groups != nil {
			ts.Setenv("MATCH", string(groups[len(groups)-1]))
			return
		}
		if time.Since(begin) > testTimeout {
			ts.Fatalf("waited in vain for %q in %s, which has:\n%s", args[1], args[0], text)
		}
	}
}

// listen NETWORK reserves a loopback port for the rest of the script, as $PORT.
func listen(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: listen tcp|udp")
	}
	if args[0] == "tcp" {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		ts.Check(err)
		ts.Defer(func() { l.Close() })
		ts.Setenv("PORT", strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
		return
	}
	l, err := net.ListenPacket("udp4", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv("PORT", strconv.Itoa(l.LocalAddr().(*net.UDPAddr).Port))
}

// datagram ADDR TEXT [odd|even] sends a UDP datagram, from an odd or even port.
func datagram(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: datagram ADDR TEXT [odd|even]")
	}
	conn, err := net.Dial("udp", args[0])
	ts.Check(err)
	defer conn.Close()
	isOdd := conn.LocalAddr().(*net.UDPAddr).Port%2 == 1
	if len(args) == 3 && isOdd != (args[2] == "odd") {
		datagram(ts, neg, args) // while this port is taken, another one
		return
	}
	_, err = conn.Write([]byte(args[1]))
	ts.Check(err)
}

// frames DEVICE TAG... sends frames with the probe's datagram, each with a VLAN tag given
// in hexadecimal.
func frames(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: frames DEVICE TAG...")
	}
	device, err := net.InterfaceByName(args[0])
	ts.Check(err)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	ts.Check(err)
	defer unix.Close(fd)
	const datagram = "\x08\x00" +
		"\x45\x00\x00\x27\x00\x01\x40\x00\x40\x11\x3c\xc3\x7f\x00\x00\x01\x7f\x00\x00\x01" +
		"\xc3\x50\x42\x42\x00\x13\x00\x00" + capture.ProbePayload
	for _, text := range args[1:] {
		tag, err := hex.DecodeString(text)
		ts.Check(err)
		frame := string(make([]byte, 12)) + string(tag) + datagram
		ts.Check(unix.Sendto(fd, []byte(frame), 0, &unix.SockaddrLinklayer{Ifindex: device.Index}))
	}
}

// compile NAME FILE makes the BPF object of a filter among the samples or of
// the tests of package bpf.
func compile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: compile NAME FILE")
	}
	var source string
	for _, folder := range []string{"samples/filters", "bpf/testdata/filters"} {
		path, err := filepath.Abs(filepath.Join("..", "..", folder, args[0]+".c"))
		ts.Check(err)
		if _, err := os.Stat(path); err == nil {
			source = path
		}
	}
	var name unix.Utsname
	ts.Check(unix.Uname(&name))
	headers := "/usr/include/" + unix.ByteSliceToString(name.Machine[:]) + "-linux-gnu"
	ts.Check(ts.Exec("clang", "-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v2", "-idirafter", headers, "-c", source, "-o", args[1]))
}

// mode OCTAL FILE compares a file's permissions.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode OCTAL FILE")
	}
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}
