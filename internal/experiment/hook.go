package experiment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/skb"
)

// Hook is a place where the kernel runs a program for a packet.
type Hook struct {
	// Name is the section of such programs, or how they are attached.
	Name string
	// Program names the type of the program, in the words of linux/bpf.h.
	Program string
	// Context names the struct that the program gets, Fields are what is in it.
	Context string
	Fields  []skb.Field
	// Pass is what a program returns that leaves a packet alone.
	Pass int32
	// Place is where a program is attached.
	Place Place

	typ    ebpf.ProgramType
	attach ebpf.AttachType
	// The fields with the direct accessible bytes and the length.
	data, dataEnd, length skb.Field
}

// Place is where the program of a Hook is attached.
type Place int

const (
	_ Place = iota
	// OnCgroup is all sockets of a cgroup; a Recorder takes those that are marked.
	OnCgroup
	// OnPacketSocket is a packet socket beside the one that is looked at.
	OnPacketSocket
	// OnSocket is the socket itself.
	OnSocket
	// OnGroup is the reuseport group that the socket is in.
	OnGroup
)

// Hooks lists the places that a packet for a socket passes.
func Hooks() []Hook {
	over := func(h Hook) Hook {
		h.Context, h.Fields = "__sk_buff", skb.Fields()
		h.data, h.dataEnd, h.length = skb.Named("data"), skb.Named("data_end"), skb.Named("len")
		return h
	}
	const cgroup, filter = "BPF_PROG_TYPE_CGROUP_SKB", "BPF_PROG_TYPE_SOCKET_FILTER"
	md := skb.Reuseport()
	return []Hook{
		over(Hook{Name: "cgroup_skb/ingress", Program: cgroup, typ: ebpf.CGroupSKB, attach: ebpf.AttachCGroupInetIngress, Pass: 1, Place: OnCgroup}),
		over(Hook{Name: "cgroup_skb/egress", Program: cgroup, typ: ebpf.CGroupSKB, attach: ebpf.AttachCGroupInetEgress, Pass: 1, Place: OnCgroup}),
		over(Hook{Name: "packet socket", Program: filter, typ: ebpf.SocketFilter, Pass: -1, Place: OnPacketSocket}),
		over(Hook{Name: "socket", Program: filter, typ: ebpf.SocketFilter, Pass: -1, Place: OnSocket}),
		{
			Name: "sk_reuseport", Program: "BPF_PROG_TYPE_SK_REUSEPORT", typ: ebpf.SkReuseport, Pass: 1, Place: OnGroup,
			Context: "sk_reuseport_md", Fields: md, data: md[0], dataEnd: md[1], length: md[2],
		},
		over(Hook{Name: "reuseport filter", Program: filter, typ: ebpf.SocketFilter, Pass: -1, Place: OnGroup}),
	}
}

func (h *Hook) spec() ebpf.ProgramSpec { return ebpf.ProgramSpec{Type: h.typ, AttachType: h.attach} }

// Readable asks the verifier whether a program of the hook may read a field.
func (h *Hook) Readable(f skb.Field) (bool, error) {
	spec := h.spec()
	spec.Instructions = reading(f, h.Pass)
	return accepted("reading field "+f.Name, &spec)
}

// Returns asks the verifier whether a program of the hook may return a number.
func (h *Hook) Returns(number int32) (bool, error) {
	spec := h.spec()
	spec.Instructions = asm.Instructions{asm.Mov.Imm(asm.R0, number), asm.Return()}
	return accepted(fmt.Sprintf("returning %d", number), &spec)
}

// Direct asks the verifier whether a program of the hook may read the packet through data
// and data_end.
func (h *Hook) Direct() (bool, error) {
	spec := h.spec()
	spec.Instructions = asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	spec.Instructions = append(spec.Instructions, h.loadDirect()...)
	spec.Instructions = append(spec.Instructions, asm.Mov.Imm(asm.R0, h.Pass).WithSymbol("short"), asm.Return())
	return accepted("reading through data and data_end", &spec)
}

// loadDirect leaves the first 8 bytes of the linear part in R5, and its length in R3; where there
// are fewer, it goes to short.
func (h *Hook) loadDirect() asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.R6, h.data.Offset, sizes[h.data.Size]),
		asm.LoadMem(asm.R2, asm.R6, h.dataEnd.Offset, sizes[h.dataEnd.Size]),
		asm.Mov.Reg(asm.R3, asm.R2),
		asm.Sub.Reg(asm.R3, asm.R1),
		asm.Mov.Reg(asm.R4, asm.R1),
		asm.Add.Imm(asm.R4, 8),
		asm.JGT.Reg(asm.R4, asm.R2, "short"),
		asm.LoadMem(asm.R5, asm.R1, 0, asm.DWord),
	}
}

// What a Recorder keeps of each packet.
const (
	hookRuns  = 64  // packets
	hookBytes = 256 // of each
	headBytes = 16  // of the network and the link header

	atLen      = 0
	atErr      = 8
	atNetErr   = 16
	atLinkErr  = 24
	atLinear   = 32
	atDirect   = 40
	atNet      = 48
	atLink     = atNet + headBytes
	atData     = atLink + headBytes
	recordSize = atData + hookBytes
)

// Recorder is a program that records what it can reach of each of the first 64 packets of a socket.
type Recorder struct {
	filter
	// Hook is where it runs.
	Hook Hook
	mark uint32 // of sockets, which tells those that are looked at from all others of the cgroup
	link link.Link
}

// HookRun is what a Recorder found in one packet.
type HookRun struct {
	// Len is the length of the packet from offset 0 on.
	Len int
	// Data are the first bytes from there on, at most 256; Failed says that they could not be loaded.
	Data   []byte
	Failed bool
	// Net and Link are 16 bytes from the network and from the link header on, nil where the load failed
	// (bpf_skb_load_bytes_relative).
	Net, Link []byte
	// Linear is how many bytes are between data and data_end, -1 if the program may not read them.
	// Direct are the first 8 of them, nil if there are fewer.
	Linear int
	Direct []byte
}

// NewMark makes a mark of sockets (SO_MARK) that others hardly have.
func NewMark() uint32 { return rand.Uint32() | 1<<31 }

// OpenRecorder loads a Recorder that returns a number for each packet. direct says that the program
// may read the packet directly. On a cgroup it takes only the packets of sockets with the mark.
func (h Hook) OpenRecorder(direct bool, returned int32, mark uint32) (*Recorder, error) {
	r := &Recorder{Hook: h, mark: mark}
	f, err := openProgram("loading a recorder of "+h.Name, h.spec(), recordSize, hookRuns+1, func(results *ebpf.Map) asm.Instructions {
		ins := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
		if h.Place == OnCgroup {
			ins = append(ins, r.onlyMarked()...)
		}
		ins = append(ins, asm.StoreImm(asm.RFP, -4, 0, asm.Word))
		ins = append(ins, lookup(results, "pass")...)
		ins = append(ins,
			asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
			asm.Add.Imm(asm.R1, 1),
			asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
			asm.StoreMem(asm.RFP, -4, asm.R1, asm.Word),
		)
		ins = append(ins, lookup(results, "done")...)
		ins = append(ins, asm.Mov.Reg(asm.R7, asm.R0))
		ins = append(ins, h.loadBytes()...)
		ins = append(ins, loadRelative(1, atNet, atNetErr)...)
		ins = append(ins, loadRelative(0, atLink, atLinkErr)...)
		if direct {
			ins = append(ins, h.loadDirect()...)
			ins = append(ins,
				asm.StoreMem(asm.R7, atDirect, asm.R5, asm.DWord),
				asm.Mov.Reg(asm.R3, asm.R3).WithSymbol("short"),
				asm.StoreMem(asm.R7, atLinear, asm.R3, asm.DWord),
			)
		} else {
			ins = append(ins, asm.Mov.Imm(asm.R1, -1), asm.StoreMem(asm.R7, atLinear, asm.R1, asm.DWord))
		}
		return append(ins,
			asm.Mov.Imm(asm.R0, returned).WithSymbol("done"),
			asm.Return(),
			asm.Mov.Imm(asm.R0, h.Pass).WithSymbol("pass"),
			asm.Return(),
		)
	})
	if err != nil {
		return nil, err
	}
	r.filter = f
	if h.Place == OnCgroup {
		if err := r.attachCgroup(); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return r, nil
}

// onlyMarked lets all packets pass but those of sockets with the mark.
func (r *Recorder) onlyMarked() asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.R6, skb.Sock.Offset, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "pass"),
		asm.FnSkFullsock.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R1, asm.R0, skb.Named("sk.mark").Offset, asm.Word),
		asm.LoadImm(asm.R2, int64(r.mark), asm.DWord),
		asm.JNE.Reg(asm.R1, asm.R2, "pass"),
	}
}

// loadBytes loads the bytes from offset 0 on.
func (h *Hook) loadBytes() asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R4, asm.R6, h.length.Offset, asm.Word),
		asm.StoreMem(asm.R7, atLen, asm.R4, asm.DWord),
		asm.JLE.Imm(asm.R4, hookBytes, "fits"),
		asm.Mov.Imm(asm.R4, hookBytes),
		asm.JLT.Imm(asm.R4, 1, "empty").WithSymbol("fits"),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Reg(asm.R3, asm.R7),
		asm.Add.Imm(asm.R3, atData),
		asm.FnSkbLoadBytes.Call(),
		asm.StoreMem(asm.R7, atErr, asm.R0, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("empty"),
	}
}

// loadRelative loads bytes from the network (1) or link header (0) on.
func loadRelative(from int32, to, failure int16) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Reg(asm.R3, asm.R7),
		asm.Add.Imm(asm.R3, int32(to)),
		asm.Mov.Imm(asm.R4, headBytes),
		asm.Mov.Imm(asm.R5, from),
		asm.FnSkbLoadBytesRelative.Call(),
		asm.StoreMem(asm.R7, failure, asm.R0, asm.DWord),
	}
}

func (r *Recorder) attachCgroup() error {
	root, err := bpf.CgroupRoot()
	if err != nil {
		return err
	}
	defer root.Close()
	r.link, err = link.AttachCgroup(link.CgroupOptions{
		Path: fmt.Sprintf("/proc/self/fd/%d", root.Fd()), Attach: r.Hook.attach, Program: r.program,
	})
	if err != nil {
		return bpf.Diagnose("attaching to "+r.Hook.Name, err)
	}
	return nil
}

// CallError is a system call that a socket refuses.
type CallError struct {
	Call string
	Err  error
}

func (e *CallError) Error() string { return e.Call + ": " + e.Err.Error() }

func (e *CallError) Unwrap() error { return e.Err }

// Attach makes the recorder see a socket's packets. One OnGroup has to be attached before the socket
// is bound. The error is a *CallError.
func (r *Recorder) Attach(fd int) error {
	set := func(call string, option, value int) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, value); err != nil {
			return &CallError{call, err}
		}
		return nil
	}
	switch r.Hook.Place {
	case OnCgroup:
		return set("SO_MARK", unix.SO_MARK, int(int32(r.mark)))
	case OnGroup:
		if err := set("SO_REUSEPORT", unix.SO_REUSEPORT, 1); err != nil {
			return err
		}
		return set("SO_ATTACH_REUSEPORT_EBPF", unix.SO_ATTACH_REUSEPORT_EBPF, r.program.FD())
	default:
		return set("SO_ATTACH_BPF", unix.SO_ATTACH_BPF, r.program.FD())
	}
}

// Runs reads what the recorder has found so far.
func (r *Recorder) Runs() ([]HookRun, error) {
	value := make([]byte, recordSize)
	if err := r.results.Lookup(uint32(0), &value); err != nil {
		return nil, fmt.Errorf("reading what %s saw: %w", r.Hook.Name, err)
	}
	runs := min(binary.NativeEndian.Uint64(value), hookRuns)
	var all []HookRun
	for i := range uint32(runs) {
		b := make([]byte, recordSize)
		if err := r.results.Lookup(i+1, &b); err != nil {
			return nil, fmt.Errorf("reading what %s saw: %w", r.Hook.Name, err)
		}
		number := func(at int) int { return int(int64(binary.NativeEndian.Uint64(b[at:]))) }
		run := HookRun{Len: number(atLen), Failed: number(atErr) != 0, Linear: number(atLinear)}
		if !run.Failed {
			run.Data = b[atData : atData+min(run.Len, hookBytes)]
		}
		if number(atNetErr) == 0 {
			run.Net = b[atNet : atNet+headBytes]
		}
		if number(atLinkErr) == 0 {
			run.Link = b[atLink : atLink+headBytes]
		}
		if run.Linear >= 8 {
			run.Direct = b[atDirect : atDirect+8]
		}
		all = append(all, run)
	}
	return all, nil
}

// Close takes the recorder off the cgroup, and gives it up. Sockets that have it keep it.
func (r *Recorder) Close() error {
	var err error
	if r.link != nil {
		err = r.link.Close()
	}
	return errors.Join(err, r.filter.Close())
}
