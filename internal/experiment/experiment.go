// Package experiment finds out what a kernel lets a socket filter see of a packet, with
// small programs of its own.
package experiment

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// filter is a small socket filter that keeps every packet and leaves what
// it finds in an array map.
type filter struct {
	program *ebpf.Program
	results *ebpf.Map
}

const license = "Dual BSD/GPL"

// openFilter loads a program that is made for a map of entries values of so many bytes.
func openFilter(doing string, valueSize, entries int, make func(results *ebpf.Map) asm.Instructions) (filter, error) {
	return openProgram(doing, ebpf.ProgramSpec{Type: ebpf.SocketFilter}, valueSize, entries, make)
}

// openProgram is openFilter for a program of any type.
func openProgram(doing string, spec ebpf.ProgramSpec, valueSize, entries int, make func(results *ebpf.Map) asm.Instructions) (_ filter, err error) {
	_ = rlimit.RemoveMemlock()
	results, err := ebpf.NewMap(&ebpf.MapSpec{
		Type: ebpf.Array, KeySize: 4, ValueSize: uint32(valueSize), MaxEntries: uint32(entries),
	})
	if err != nil {
		return filter{}, bpf.Diagnose(doing, err)
	}
	spec.License, spec.Instructions = license, make(results)
	program, err := ebpf.NewProgram(&spec)
	if err != nil {
		results.Close()
		return filter{}, bpf.Diagnose(doing, err)
	}
	return filter{program, results}, nil
}

// Attach puts the filter on a socket, in place of any filter that it has.
func (f filter) Attach(fd int) error { return bpf.AttachFilter(fd, f.program.FD()) }

// Close gives the filter up. Sockets that have it keep it.
func (f filter) Close() error { return errors.Join(f.program.Close(), f.results.Close()) }

// The bases of the absolute loads that socket filters had before eBPF (linux/filter.h).
const (
	legacyNet  = -0x100000 // SKF_NET_OFF
	legacyLink = -0x200000 // SKF_LL_OFF
)

// legacyLen is how many bytes a LegacyLoad asks for.
const legacyLen = 16

// LegacyLoad is a filter that reaches below offset 0 with the absolute loads
// that socket filters had before eBPF. Outside of the packet such a load ends
// the program with 0, which drops the packet.
type LegacyLoad struct{ filter }

// LegacyReach is what a LegacyLoad found.
type LegacyReach struct {
	// Runs counts the packets for which the filter ran, Reached those of which it
	// got all bytes.
	Runs, Reached uint64
	// Data is what it got of the last packet of Reached, 16 bytes.
	Data []byte
}

// OpenLegacyNet loads a filter that asks for the network header (SKF_NET_OFF).
func OpenLegacyNet() (*LegacyLoad, error) { return openLegacy(legacyNet) }

// OpenLegacyLink loads a filter that asks for the link header (SKF_LL_OFF).
func OpenLegacyLink() (*LegacyLoad, error) { return openLegacy(legacyLink) }

func openLegacy(base int32) (*LegacyLoad, error) {
	f, err := openFilter("loading absolute loads", 8+8+legacyLen, 1, func(results *ebpf.Map) asm.Instructions {
		ins := asm.Instructions{
			// LoadAbs takes the packet from R6 and leaves nothing in R1 to R5.
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.LoadMapValue(asm.R7, results.FD(), 0),
			asm.LoadMem(asm.R1, asm.R7, 0, asm.DWord),
			asm.Add.Imm(asm.R1, 1),
			asm.StoreMem(asm.R7, 0, asm.R1, asm.DWord),
		}
		for at := int16(0); at < legacyLen; at += 4 {
			ins = append(ins,
				asm.LoadAbs(base+int32(at), asm.Word),
				asm.HostTo(asm.BE, asm.R0, asm.Word),
				asm.StoreMem(asm.R7, 16+at, asm.R0, asm.Word),
			)
		}
		return append(ins,
			asm.LoadMem(asm.R1, asm.R7, 8, asm.DWord),
			asm.Add.Imm(asm.R1, 1),
			asm.StoreMem(asm.R7, 8, asm.R1, asm.DWord),
			asm.Mov.Imm(asm.R0, -1),
			asm.Return(),
		)
	})
	if err != nil {
		return nil, err
	}
	return &LegacyLoad{f}, nil
}

// Reach reads what the filter has found so far.
func (l *LegacyLoad) Reach() (LegacyReach, error) {
	var found struct {
		Runs, Reached uint64
		Data          [legacyLen]byte
	}
	if err := l.results.Lookup(uint32(0), &found); err != nil {
		return LegacyReach{}, fmt.Errorf("reading what absolute loads reached: %w", err)
	}
	return LegacyReach{Runs: found.Runs, Reached: found.Reached, Data: found.Data[:]}, nil
}
