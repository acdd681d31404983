package capture

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// targetOwner has a datagram socket with a filter of its own, on UDP or a unix socket of that path, says
// each message that it gets, and obeys: "filter KIND" puts another filter on the socket, "lock"
// locks it, "state" says what the filter's map has, "set N" changes that.
func targetOwner(args []string) error {
	var fd int
	var err error
	address := ""
	if len(args) > 1 {
		address = args[1]
		if address == "packet" {
			fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		} else if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err == nil {
			err = unix.Bind(fd, &unix.SockaddrUnix{Name: address})
		}
	} else if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	if err != nil {
		return err
	}
	o := &filterOwner{fd: fd}
	if err := o.put(args[0]); err != nil {
		return err
	}
	if address == "" {
		sa, err := unix.Getsockname(fd)
		if err != nil {
			return err
		}
		address = addrPort(sa).String()
	}
	fmt.Println(address)
	go func() {
		buffer := make([]byte, 9000)
		for {
			n, err := unix.Read(fd, buffer)
			if err != nil {
				fmt.Println("error", err)
				return
			}
			fmt.Printf("got %s\n", buffer[:n])
		}
	}()
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		if err := o.obey(orders.Text()); err != nil {
			return err
		}
	}
	return nil
}

type filterOwner struct {
	fd    int
	state *ebpf.Map
	kept  []*ebpf.Collection
}

func (o *filterOwner) obey(order string) (err error) {
	word, rest, _ := strings.Cut(order, " ")
	var value uint32
	switch word {
	case "filter":
		err = o.put(rest)
	case "lock":
		err = unix.SetsockoptInt(o.fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1)
	case "state":
		err = o.state.Lookup(uint32(0), &value)
	case "set":
		fmt.Sscan(rest, &value)
		err = o.state.Put(uint32(0), value)
	}
	fmt.Println("done", value)
	return err
}

// decidedByByte is what filters of the owner decide by the first byte of the payload: d drops, t
// keeps four bytes.
func decidedByByte(at int32, header int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1), asm.LoadAbs(at, asm.Byte),
		asm.JEq.Imm(asm.R0, 'd', "drop"), asm.JEq.Imm(asm.R0, 't', "trim"),
		asm.Mov.Imm(asm.R0, -1), asm.Return(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("drop"), asm.Return(),
		asm.Mov.Imm(asm.R0, header+4).WithSymbol("trim"), asm.Return(),
	}
}

// ofState looks up the map state and goes on with its value at R0.
func ofState(then ...asm.Instruction) asm.Instructions {
	then[0] = then[0].WithSymbol("found")
	return append(asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, 0).WithReference("state"), asm.FnMapLookupElem.Call(),
		asm.JNE.Imm(asm.R0, 0, "found"), asm.Mov.Imm(asm.R0, 0), asm.Return(),
	}, then...)
}

// put puts a filter on the owner's socket: of the kind bytes or classic, which decide by the
// payload, reads, which keeps what the map says, or counts, which counts in the map and drops
// every second one.
func (o *filterOwner) put(kind string) error {
	header := int32(8)
	if domain, err := unix.GetsockoptInt(o.fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || domain == unix.AF_UNIX {
		header = 0
	}
	var program asm.Instructions
	switch kind {
	case "none":
		if err := unix.SetsockoptInt(o.fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); !errors.Is(err, unix.ENOENT) {
			return err
		}
		return nil
	case "classic":
		at, keep := uint32(header), uint32(header)+4
		return restoreFilter(o.fd, []unix.SockFilter{
			{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: at},
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 'd', Jf: 1}, {Code: unix.BPF_RET, K: 0},
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 't', Jf: 1}, {Code: unix.BPF_RET, K: keep},
			{Code: unix.BPF_RET, K: 0xffff},
		})
	case "bytes":
		program = decidedByByte(header, header)
	case "reads":
		program = ofState(asm.LoadMem(asm.R0, asm.R0, 0, asm.Word), asm.Return())
	case "counts":
		program = ofState(
			asm.LoadMem(asm.R1, asm.R0, 0, asm.Word), asm.Add.Imm(asm.R1, 1), asm.StoreMem(asm.R0, 0, asm.R1, asm.Word),
			asm.Mov.Imm(asm.R0, -1), asm.And.Imm(asm.R1, 1), asm.JEq.Imm(asm.R1, 1, "end"),
			asm.Mov.Imm(asm.R0, 0), asm.Return().WithSymbol("end"),
		)
	default:
		return errors.New("there is no filter " + kind)
	}
	all, err := ebpf.NewCollection(&ebpf.CollectionSpec{
		Maps:     map[string]*ebpf.MapSpec{"state": {Name: "state", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}},
		Programs: map[string]*ebpf.ProgramSpec{"own": {Name: "own_" + kind, Type: ebpf.SocketFilter, License: "GPL", Instructions: program}},
	})
	if err != nil {
		return err
	}
	o.kept = append(o.kept, all) // for as long as the process lives
	o.state = all.Maps["state"]
	if kind == "reads" {
		if err := o.state.Put(uint32(0), uint32(0xffff)); err != nil {
			return err
		}
	}
	return bpf.AttachFilter(o.fd, all.Programs["own"].FD())
}

// says gives the owner an order, and returns what it answers, and what it got before.
func (t *target) says(tb interface {
	Helper()
	Fatalf(string, ...any)
}, order string) (got []string, value string) {
	tb.Helper()
	fmt.Fprintln(t.stdin, order)
	for t.lines.Scan() {
		if message, ok := strings.CutPrefix(t.lines.Text(), "got "); ok {
			got = append(got, message)
			continue
		}
		if answer, ok := strings.CutPrefix(t.lines.Text(), "done "); ok {
			return got, answer
		}
		tb.Fatalf("the owner says %q", t.lines.Text())
	}
	tb.Fatalf("the owner says nothing: %v", t.lines.Err())
	return nil, ""
}
