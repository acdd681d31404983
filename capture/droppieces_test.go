package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// inPieces is a way in which datagrams come that are not in one piece of memory, or that a filter cuts.
type inPieces struct {
	name        string
	size        int
	segment     int   // UDP_SEGMENT of the sender
	coalesces   bool  // UDP_GRO of the receiver
	mtu         int   // of the interface, 0 for its own
	keep        int32 // of each datagram from the transport header on, 0 for all of it
	withoutHook bool  // the tap alone records what arrives
	perDatagram int   // how many the filter sees of each one sent
}

var allInPieces = []inPieces{
	{name: "pages", size: 20_000, perDatagram: 1},
	{name: "pages, the tap", size: 20_000, withoutHook: true, perDatagram: 1},
	{name: "segments", size: 5500, segment: 1000, perDatagram: 6},
	{name: "coalesced", size: 5500, segment: 1000, coalesces: true, perDatagram: 1},
	{name: "fragments", size: 5000, mtu: 1500, perDatagram: 1},
	{name: "cut", size: 1000, keep: 500, withoutHook: true, perDatagram: 1},
}

// TestDropsInPieces floods sockets with datagrams that are not in one piece of memory, from two cpus and one
// socket at the same time, so that but for their bytes they are alike: each is delivered or dropped, under
// its id, and the account has as many as the kernel counts.
func TestDropsInPieces(t *testing.T) {
	t.Parallel()
	requireDrops(t)
	for _, test := range allInPieces {
		for _, kind := range []string{"udp", "udp6"} {
			t.Run(test.name+"/"+kind, func(t *testing.T) { dropPieces(t, kind, &test) })
		}
	}
	t.Run("pages/joined", func(t *testing.T) {
		test := &allInPieces[0]
		process := startTarget(t, "sink", fmt.Sprint(smallBuffer))
		l, err := Join(JoinConfig{PIDs: []int{process.Process.Pid}, Options: Options{RingSize: 16 << 20, Views: dropViews}})
		if err != nil {
			t.Fatal(err)
		}
		var sent int
		sink := runLive(t, l, func() {
			// It reads faster than such datagrams can be sent.
			if err := process.Process.Signal(unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			sent = test.flood(t, process.ns, sockaddr(netip.MustParseAddrPort(process.address)))
			if err := process.Process.Signal(unix.SIGCONT); err != nil {
				t.Fatal(err)
			}
		})
		all, err := l.Statistics()
		a := accountOf(t, all, err)
		counts, err := l.Counts()
		if err != nil {
			t.Fatal(err)
		}
		checkPieces(t, sink, a, counts, process.ns, sent)
	})
}

func dropPieces(t *testing.T, kind string, test *inPieces) {
	config := Config{Kind: mustKind(t, kind), Namespace: mustNamespace(t), Options: Options{RingSize: 16 << 20, Views: dropViews}}
	if test.withoutHook {
		config.Views = []View{ViewKernel, ViewUser, ViewDrop}
	}
	if test.keep > 0 {
		config.Verdict = bpf.Keep(test.keep)
	}
	if test.mtu > 0 {
		if err := config.Namespace.SetMTU(test.mtu); err != nil {
			t.Fatal(err)
		}
	}
	var sent int
	sink, s := run(t, config, func(s *Session) {
		setReceiveBuffer(t, s, smallBuffer)
		if test.coalesces {
			if err := s.main.control(func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) }); err != nil {
				t.Fatal(err)
			}
		}
		sent = test.flood(t, s.config.Namespace, s.main.name)
		quietSession(t, s)
	})
	all, err := s.Statistics()
	a := accountOf(t, all, err)
	counts, err := s.Counts()
	if err != nil {
		t.Fatal(err)
	}
	checkPieces(t, sink, a, counts, s.config.Namespace, sent*test.perDatagram)
}

// flood sends from one socket and two cpus until there was no room. It returns how many datagrams were sent.
func (test *inPieces) flood(t *testing.T, ns *Namespace, to unix.Sockaddr) int {
	t.Helper()
	const each, rounds = 60, 20
	domain := unix.AF_INET
	if _, six := to.(*unix.SockaddrInet6); six {
		domain = unix.AF_INET6
	}
	fd := -1
	err := ns.Do(func() (err error) {
		if fd, err = unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if test.segment > 0 {
			err = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT, test.segment)
		}
		return errors.Join(err, unix.Connect(fd, to))
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	sent := 0
	for round := 0; round < rounds && fullDrops(t, ns) == 0; round++ {
		sent += fromTwoCPUs(t, ns, func(cpu int) error {
			for i := range each {
				payload := bytes.Repeat(binary.BigEndian.AppendUint32(nil, uint32(i<<1|cpu)), test.size/4)
				if _, err := unix.Write(fd, payload); err != nil {
					return err
				}
			}
			return nil
		}) * each
	}
	return sent
}

// fromTwoCPUs does something in a namespace on two cpus at the same time. It returns how often that was.
func fromTwoCPUs(t *testing.T, ns *Namespace, do func(cpu int) error) int {
	t.Helper()
	var all sync.WaitGroup
	var errs [2]error
	for cpu := range errs {
		all.Go(func() {
			errs[cpu] = ns.Do(func() error { return errors.Join(pin(cpu), do(cpu)) }) // which has locked the thread
		})
	}
	all.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	return len(errs)
}

// checkPieces holds the views against each other, and the account against what the kernel counts.
func checkPieces(t *testing.T, sink *memory, a *Account, counts Counts, ns *Namespace, want int) {
	t.Helper()
	if counts.Lost() > 0 {
		t.Fatalf("%d lost: the test needs larger rings", counts.Lost())
	}
	full := fullDrops(t, ns)
	drops, delivered := idsOf(t, sink.view(ViewDrop)), idsOf(t, sink.view(ViewUser))
	if full == 0 || uint64(len(drops)) != full || len(delivered) == 0 || a.Seen != uint64(want) {
		t.Fatalf("the kernel dropped %d of %d, and %d are recorded: %s", full, want, len(drops), a)
	}
	if a.Queue != full || a.Unread+a.Closed+a.Unseen != 0 {
		t.Errorf("the kernel counts %d drops for want of room: %s", full, a)
	}
	const headers = 8
	for _, p := range sink.view(ViewKernel) {
		d, dropped := drops[p.ID]
		u, read := delivered[p.ID]
		switch {
		case read == dropped:
			t.Fatalf("packet %d: delivered %v, dropped %v", p.ID, read, dropped)
		case read && !bytes.HasPrefix(p.Data[headers:], u.Data):
			t.Fatalf("packet %d was read as % x, and is % x", p.ID, u.Data[:4], p.Data[headers:][:4])
		case !read && (!bytes.HasPrefix(p.Data, transport(d.Data)) || d.Drop.Reason != reasonFull || d.Src != p.Src || d.Dst != p.Dst):
			t.Fatalf("packet %d is % x, and % x was dropped: %+v", p.ID, p.Data[:20], transport(d.Data), d.Drop)
		}
		delete(drops, p.ID)
	}
	if len(drops) > 0 {
		t.Errorf("%d drops are of packets that no view has", len(drops))
	}
}
