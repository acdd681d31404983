package bpf

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkCalls is what a system call costs: when nobody looks, in a process
// that is not followed, and in one that is; and what a receiving one costs there.
func BenchmarkCalls(b *testing.B) {
	requirePrivilege(b)
	receiver, sender := udpPair(b)
	buf := make([]byte, 64)
	calls := map[string]func(){
		"getppid": func() { _, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0) },
		"recvfrom": func() {
			if err := unix.Send(sender, buf, 0); err != nil {
				b.Fatal(err)
			}
			if _, _, err := unix.Recvfrom(receiver, buf, 0); err != nil {
				b.Fatal(err)
			}
		},
	}
	states := []string{"off", "others tracepoints", "followed tracepoints", "others raw", "followed raw"}
	if hasSessions() {
		states = append(states, "others functions", "followed functions")
	}
	for _, state := range states {
		for name, call := range calls {
			b.Run(state+"/"+name, func(b *testing.B) {
				if state != "off" {
					hook := mustHook(b, mustOpen(b, Options{RingSize: MinRingSize, Snaplen: MaxSnaplen}), HookOptions{Record: true})
					c, err := openCallsOf(hook, CallsOptions{}, ways[strings.Fields(state)[1]])
					if err != nil {
						b.Fatal(err)
					}
					defer c.Close()
					if strings.HasPrefix(state, "followed") {
						if _, err := hook.Mark(receiver); err != nil {
							b.Fatal(err)
						}
						if err := hook.Follow(uint32(os.Getpid()), nil); err != nil {
							b.Fatal(err)
						}
					}
				}
				for b.Loop() {
					call()
				}
			})
		}
	}
}
