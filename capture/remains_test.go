package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the kernel keeps of a capture when that is over, in whichever way: nothing.

func init() { targets["capturer"] = targetCapturer }

// targetCapturer captures from a process, or from a command, until it is told to end.
func targetCapturer(args []string) (err error) {
	var l *Live
	if args[0] == "pid" {
		var pid int
		if _, err := fmt.Sscan(args[1], &pid); err != nil {
			return err
		}
		l, err = Join(JoinConfig{PIDs: []int{pid}, Options: Options{RingSize: smallRing}})
	} else {
		l, err = Start(JoinConfig{Options: Options{RingSize: smallRing}}, Command{Args: args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if args[0] == "pid" {
		fmt.Println("joined")
		go func() {
			_, _ = os.Stdin.Read(make([]byte, 100))
			cancel()
		}()
	}
	if err := errors.Join(l.Run(ctx, new(memory)), l.Close()); err != nil {
		return err
	}
	// Pages of maps that variables are in are mapped until nobody can use these any more.
	for range 2 {
		runtime.GC()
	}
	return untilStdinEnds("closed")
}

// kernelObjects are the BPF objects that a process holds, as "prog_id 7".
func kernelObjects(t *testing.T, pid int) map[string]bool {
	t.Helper()
	all := make(map[string]bool)
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it is closed by now
		}
		for line := range bytes.Lines(text) {
			what, id, _ := strings.Cut(string(bytes.TrimSpace(line)), ":")
			if _, known := getByID[what]; known {
				all[what+" "+strings.TrimSpace(id)] = true
			}
		}
	}
	return all
}

// getByID are the commands of bpf(2) that find an object by its number.
var getByID = map[string]uintptr{"prog_id": 13, "map_id": 14, "link_id": 30}

// isThere tells whether the kernel has an object.
func isThere(t *testing.T, object string) bool {
	t.Helper()
	var attr struct{ id, next, flags uint32 }
	var what string
	if _, err := fmt.Sscan(object, &what, &attr.id); err != nil {
		t.Fatal(err)
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, getByID[what], uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno == unix.ENOENT {
		return false
	}
	if errno != 0 {
		t.Fatalf("looking for %s: %v", object, errno)
	}
	unix.Close(int(fd))
	return true
}

// remainsPatience is how long the kernel may take to free what nobody holds any more.
const remainsPatience = time.Minute

// checkNothingRemains holds that all of the objects go away.
func checkNothingRemains(t *testing.T, objects map[string]bool) {
	t.Helper()
	kinds := make(map[string]int)
	for object := range objects {
		what, _, _ := strings.Cut(object, " ")
		kinds[what]++
	}
	if kinds["prog_id"] < 10 || kinds["map_id"] < 5 || kinds["link_id"] < 8 {
		t.Fatalf("these are not a capture's: %v", kinds)
	}
	for begin := time.Now(); len(objects) > 0; time.Sleep(20 * time.Millisecond) {
		for object := range objects {
			if !isThere(t, object) {
				delete(objects, object)
			}
		}
		if time.Since(begin) > remainsPatience {
			t.Fatalf("the kernel still has %v", objects)
		}
	}
}

func TestNothingRemains(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		end  func(t *testing.T, server, capturer *target)
	}{
		{"after the end", func(t *testing.T, _, capturer *target) { capturer.tell(t, "end") }},
		{"after kill -9", func(t *testing.T, _, capturer *target) { mustKill(t, capturer) }},
		{"after kill -9 of the process", func(t *testing.T, server, capturer *target) {
			mustKill(t, server)
			capturer.line(t)
		}},
		{"after kill -9 of both", func(t *testing.T, server, capturer *target) {
			mustKill(t, server)
			mustKill(t, capturer)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := startTarget(t, "echo", "tcp4", "127.0.0.1:0")
			conn := server.dial(t, "tcp", server.address)
			exchange(t, conn, "before")
			capturer := startTarget(t, "capturer", "pid", fmt.Sprint(server.Process.Pid))
			objects := kernelObjects(t, capturer.Process.Pid)
			exchange(t, conn, "meanwhile")
			test.end(t, server, capturer)
			checkNothingRemains(t, objects)
			if server.ProcessState == nil {
				exchange(t, conn, "afterwards")
				checkNoFilter(t, server.Process.Pid)
			}
		})
	}
}

func mustKill(t *testing.T, killed *target) {
	t.Helper()
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = killed.Wait() // that it was killed
}

// A command goes on when the tool that has started it is killed.
func TestNothingRemainsOfACommand(t *testing.T) {
	t.Parallel()
	capturer := startTarget(t, "capturer", "command", asCommand(t), "echo", "tcp4", "127.0.0.1:0")
	objects := kernelObjects(t, capturer.Process.Pid)
	conn := capturer.dial(t, "tcp", capturer.address)
	exchange(t, conn, "meanwhile")
	if err := capturer.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	checkNothingRemains(t, objects)
	exchange(t, conn, "afterwards")
	capturer.stdin.Close() // which is the command's, too
	if rest, err := io.ReadAll(conn); err != nil || len(rest) > 0 {
		t.Errorf("%q at the end: %v", rest, err)
	}
}
