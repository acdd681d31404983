package capture

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/ebpfdump/ebpfdump/bpf"
	"golang.org/x/sys/unix"
)

// A number that the pairing is not shown: the packet's mark tells it of a packet, and bytes behind the snaplen
// of a read.
type unseen struct {
	marks map[uint64]uint32 // by id, as the kernel view has them
	reads []read
}

type read struct {
	id     uint64
	number uint32
	reason Missing
}

func (u *unseen) WritePacket(p *Packet) error {
	switch p.Interface.View {
	case ViewKernel:
		u.marks[p.ID] = p.Meta.Mark
	case ViewUser:
		whole := p.Data[:p.Len]
		u.reads = append(u.reads, read{p.ID, binary.NativeEndian.Uint32(whole[p.Len-4:]), p.Receipt.Missing})
	}
	return nil
}

// floodAlike sends datagrams, of which only the last four bytes and the mark differ, from a cpu of its own.
func floodAlike(t *testing.T, ns *Namespace, to unix.Sockaddr, sender, size int, until time.Time) {
	runtime.LockOSThread() // for good: the thread, which is bound to a cpu, ends with the goroutine
	var set unix.CPUSet
	set.Set(sender % runtime.NumCPU())
	var fd int
	err := ns.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		return err
	})
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(fd)
	_ = unix.SchedSetaffinity(0, &set)
	at := *to.(*unix.SockaddrInet4) // into which Connect writes
	if err := unix.Connect(fd, &at); err != nil {
		t.Error(err)
		return
	}
	data := make([]byte, size)
	for n := uint32(1); time.Now().Before(until); n++ {
		mark := n<<1 | uint32(sender)
		binary.NativeEndian.PutUint32(data[size-4:], mark)
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
			t.Error(err)
			return
		}
		_, _ = unix.Write(fd, data)
	}
}

// Where the ring loses packets and what is known of their bytes is alike, reads have the ids of
// their packets, or none. What is left are neighbours, as many as the machine's timing makes: with several
// cpus, the count of drops that comes with a message may include one that another cpu has counted meanwhile,
// also where nothing is lost.
func TestIdsWhereTheRingLoses(t *testing.T) {
	t.Parallel()
	for _, ring := range []int{bpf.MinRingSize, 1 << 20} {
		ns := mustNamespace(t)
		s, err := Open(Config{Kind: mustKind(t, "udp"), Namespace: ns, Options: Options{RingSize: ring, Snaplen: 64}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		u := unseen{marks: make(map[uint64]uint32)}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var over sync.WaitGroup
		until := time.Now().Add(800 * time.Millisecond)
		for i := range 2 {
			over.Go(func() { floodAlike(t, ns, s.main.name, i, 1400, until) })
		}
		go func() { over.Wait(); cancel() }()
		if err := s.Run(ctx, &u); err != nil {
			t.Fatal(err)
		}
		counts, err := s.Counts()
		if err != nil {
			t.Fatal(err)
		}
		ids, near, far, ambiguous := 0, 0, 0, 0
		for _, r := range u.reads {
			switch off := int32(u.marks[r.id]>>1) - int32(r.number>>1); {
			case r.id == 0 && r.reason == MissingAmbiguous:
				ambiguous++
			case r.id == 0:
			case off > 64 || off < -64 || u.marks[r.id]&1 != r.number&1:
				far++
				fallthrough
			case off != 0:
				near++
				fallthrough
			default:
				ids++
			}
		}
		said := fmt.Sprintf("ring %d: %d packets lost; of %d reads %d have ids, of which %d are wrong, %d by far; %d ambiguous",
			ring, counts.Tap.Lost(), len(u.reads), ids, near, far, ambiguous)
		if far*1000 > ids || counts.Tap.Lost() > 1000 && ambiguous == 0 {
			t.Error(said)
		}
		t.Log(said)
	}
}
