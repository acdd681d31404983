package bpf

import (
	"errors"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// verdictSymbol is the function in tap.c that a Verdict takes the place of.
const verdictSymbol = "verdict"

// Verdict decides for the tap how much of a packet the socket keeps. The tap
// records what it decided. A nil *Verdict keeps everything.
type Verdict struct {
	instructions asm.Instructions
}

// Keep is the verdict that keeps at most so many bytes of each packet, from
// offset 0 on: 0 drops it, -1 keeps everything.
func Keep(bytes int32) *Verdict {
	return &Verdict{asm.Instructions{
		asm.Mov.Imm(asm.R0, bytes),
		asm.Return(),
	}}
}

// splice puts the verdict in the place of the program's own.
func (v *Verdict) splice(program *ebpf.ProgramSpec) error {
	old := program.Instructions
	begin, end := -1, len(old)
	for i, ins := range old {
		switch symbol := ins.Symbol(); {
		case symbol == verdictSymbol:
			begin = i
		case symbol != "" && begin >= 0:
			end = min(end, i)
		}
	}
	if begin < 0 {
		return errors.New("the tap has no function " + verdictSymbol)
	}
	// The first instruction carries the symbol and the function's BTF.
	own := append(asm.Instructions(nil), v.instructions...)
	own[0] = own[0].WithMetadata(old[begin].Metadata)
	spliced := append(asm.Instructions(nil), old[:begin]...)
	program.Instructions = append(append(spliced, own...), old[end:]...)
	return nil
}
