package bpf

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// culprit is the instruction at which a verifier gave up.
type culprit struct {
	program *ebpf.ProgramSpec
	index   int    // in the program's instructions
	line    string // of the log, without its number
}

var (
	// refusedProgram names the program of a collection that was refused.
	refusedProgram = regexp.MustCompile(`^program ([^:\s]+): `)
	// logged is how a verifier prints an instruction that it looks at.
	logged = regexp.MustCompile(`^\s*(\d+): (\([0-9a-f]{2}\) .*)$`)
)

// culprit finds the instruction that the log shows last. ok is false where the log shows none.
func (v *Verdict) culprit(err error, refused *ebpf.VerifierError) (c culprit, ok bool) {
	name := v.program
	if m := refusedProgram.FindStringSubmatch(err.Error()); m != nil && v.spec.Programs[m[1]] != nil {
		name = m[1]
	}
	c.program = v.spec.Programs[name]
	for _, line := range slices.Backward(aboutProgram(refused.Log)) {
		m := logged.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		at, _ := strconv.ParseUint(m[1], 10, 32)
		c.line = m[2]
		for iter := c.program.Instructions.Iterate(); iter.Next(); {
			if iter.Offset == asm.RawInstructionOffset(at) {
				c.index = iter.Index
				return c, true
			}
		}
		return c, false
	}
	return c, false
}

func (c culprit) instruction() *asm.Instruction { return &c.program.Instructions[c.index] }

// where says in which function the instruction is, and of which line of the
// source it was made, where the object knows: " (function f, filter.c:5)".
func (c culprit) where() string {
	var function, line string
	for i := c.index; i >= 0 && (function == "" || line == ""); i-- {
		ins := &c.program.Instructions[i]
		if source, ok := ins.Source().(*btf.Line); ok && line == "" && function == "" {
			line = fmt.Sprintf("%s:%d", filepath.Base(source.FileName()), source.LineNumber())
		}
		if fn := btf.FuncMetadata(ins); fn != nil {
			function = fn.Name
		}
	}
	var words []string
	if function != "" {
		words = append(words, "function "+function)
	}
	if line != "" {
		words = append(words, line)
	}
	if len(words) == 0 {
		return ""
	}
	return " (" + strings.Join(words, ", ") + ")"
}
