package bpf

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// BenchmarkDrops reports what the program at kfree_skb costs in the kernel for each packet that is
// freed, from the kernel's own BPF run-time statistics: of sockets that are not followed, of none, and
// of one that is.
func BenchmarkDrops(b *testing.B) {
	for _, row := range []struct {
		name               string
		marked, nobody     bool
		registered, copied bool
	}{
		{name: "others"},
		{name: "others beside a packet socket", copied: true},
		{name: "nobody's", nobody: true},
		{name: "nobody's at a port that is registered", nobody: true, registered: true},
		{name: "followed", marked: true},
	} {
		b.Run(row.name, func(b *testing.B) { benchmarkDrops(b, row.marked, row.nobody, row.registered, row.copied) })
	}
}

func benchmarkDrops(b *testing.B, marked, nobody, registered, copied bool) {
	tap := mustOpen(b, Options{RingSize: DefaultRingSize, Snaplen: MaxSnaplen, WakeupBytes: DefaultRingSize / 4})
	flows, err := NewFlows()
	if err != nil {
		b.Fatal(err)
	}
	defer flows.Close()
	drops := mustDrops(b, tap, nil, DropOptions{Flows: flows})
	receiver, sender := testutil.UDPPair(b)
	local, err := unix.Getsockname(receiver)
	if err != nil {
		b.Fatal(err)
	}
	if marked {
		if err := drops.Mark(receiver); err != nil {
			b.Fatal(err)
		}
	}
	if registered {
		at := int64(local.(*unix.SockaddrInet4).Port)
		if _, err := flows.hints.WriteAt([]byte{1}, at); err != nil {
			b.Fatal(err)
		}
	}
	if copied {
		fullPacketSocket(b)
	}
	if nobody {
		// From now on it gets nothing from the sender.
		if err := unix.Connect(receiver, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 9}); err != nil {
			b.Fatal(err)
		}
	}
	nothing := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	if err := unix.SetsockoptSockFprog(receiver, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing}); err != nil {
		b.Fatal(err)
	}
	drained := drain(b, tap)
	spent := timed(b, drops.objects.programs[dropProgFreed])
	payload := make([]byte, 64)
	for b.Loop() {
		// What is refused is told of at the next one.
		if err := unix.Send(sender, payload, 0); err != nil && err != unix.ECONNREFUSED {
			b.Fatal(err)
		}
	}
	runs, took := spent()
	drained()
	b.ReportMetric(took/float64(runs), "kernel-ns/packet")
	b.ReportMetric(float64(runs)/float64(b.N), "freed/packet")
}

// fullPacketSocket gets copies of all frames that nobody reads.
func fullPacketSocket(b *testing.B) {
	const allFrames = 0x0300 // ETH_P_ALL in network byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, allFrames)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { unix.Close(fd) })
}
