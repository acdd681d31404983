package bpf

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkReads is what a system call costs: when nobody looks, in a process
// that is not watched, and in one that is; and what a receiving one costs there.
func BenchmarkReads(b *testing.B) {
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
	for _, state := range []string{"off", "unwatched", "watched", "unwatched raw", "watched raw"} {
		for name, call := range calls {
			b.Run(state+"/"+name, func(b *testing.B) {
				if state != "off" {
					r, err := openReads(ReadsOptions{}, strings.HasSuffix(state, "raw"))
					if err != nil {
						b.Fatal(err)
					}
					defer r.Close()
					if strings.HasPrefix(state, "watched") {
						if err := r.WatchProcess(uint32(os.Getpid())); err != nil {
							b.Fatal(err)
						}
						if err := r.WatchSocket(uint32(os.Getpid()), int32(receiver), 1); err != nil {
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
