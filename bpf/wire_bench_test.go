package bpf

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkWire reports what the tap of the interfaces costs in the kernel for each frame that it is shown, and what the
// register costs for each packet that is sent: of followed sockets, and of others.
func BenchmarkWire(b *testing.B) {
	for _, row := range []struct {
		name     string
		register bool // the program that enters what is sent
		followed bool
		port     bool // others have a port that is known
	}{
		{"frames/others", false, false, false},
		{"frames/others with a known port", false, false, true},
		{"frames/followed", false, true, false},
		{"register/others", true, false, false},
		{"register/followed", true, true, false},
	} {
		for _, size := range []int{64, 1400} {
			b.Run(fmt.Sprintf("%s/bytes=%d", row.name, size), func(b *testing.B) {
				benchmarkWire(b, row.register, row.followed, row.port, size)
			})
		}
	}
}

func benchmarkWire(b *testing.B, register, followed, port bool, size int) {
	tap := mustOpen(b, Options{RingSize: DefaultRingSize, Snaplen: MaxSnaplen, WakeupBytes: DefaultRingSize / 4})
	hook, f := mustHook(b, tap, HookOptions{}), mustFlows(b)
	if err := f.Follow(hook, nil); err != nil {
		b.Fatal(err)
	}
	w := mustWire(b, tap, f)
	receiver, sender := udpPair(b)
	name, err := unix.Getsockname(receiver)
	if err != nil {
		b.Fatal(err)
	}
	at := name.(*unix.SockaddrInet4)
	local := netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port))
	s := FlowSocket{Network: mustNetwork(b), Family: unix.AF_INET, Type: unix.SOCK_DGRAM, Protocol: unix.IPPROTO_UDP, Local: local}
	if port {
		s.Local = netip.AddrPortFrom(netip.MustParseAddr("10.1.2.3"), local.Port())
	}
	if followed || port {
		if err := f.Enter(&s); err != nil {
			b.Fatal(err)
		}
	}
	if followed {
		if _, err := hook.Mark(sender); err != nil {
			b.Fatal(err)
		}
	}
	drained := drain(b, tap)
	program := w.places[0].objects.programs[wireProgWire]
	if register {
		program = f.objects.programs[flowsProgSends]
	}
	spent := timed(b, program)
	payload := make([]byte, size)
	for b.Loop() {
		if err := unix.Send(sender, payload, 0); err != nil {
			b.Fatal(err)
		}
	}
	runs, took := spent()
	drained()
	// Of lo the frame that leaves is passed over at once: half of the runs.
	if !register {
		runs /= 2
	}
	b.ReportMetric(took/float64(runs), "kernel-ns/packet")
}
