package bpf

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// RefusedError says that the kernel's verifier refuses a filter.
type RefusedError struct {
	// What is refused, and by whom.
	What string
	// Reason is the last thing that the verifier said.
	Reason string
	// Log is all that it said, a line each.
	Log []string
	// Err is what the kernel said.
	Err error
}

func (e *RefusedError) Error() string { return e.What + ": " + e.Reason }
func (e *RefusedError) Unwrap() error { return e.Err }

// diagnose turns the error of loading the tap with the verdict into what the
// user can do about it. It looks first at the filter by itself: what the kernel
// says of that is about the user's own lines only.
func (v *Verdict) diagnose(err error) error {
	alone, aerr := v.load(true)
	if aerr != nil {
		return v.explain("refuses it", aerr)
	}
	alone.Close()
	return v.explain("takes it alone, but not inside of the tap, which needs room on the stack itself", err)
}

// explain tells what is missing, or what the verifier does, which is a clause.
func (v *Verdict) explain(does string, err error) error {
	doing := "loading " + v.name
	var refused *ebpf.VerifierError
	_ = errors.As(err, &refused)
	if missing := v.missing(err, refused); missing != "" {
		return &MissingError{
			What: fmt.Sprintf("%s needs %s, which Linux %s lacks", doing, missing, release()),
			Hint: "use a newer kernel, or a filter that does without",
			Err:  err,
		}
	}
	if refused != nil {
		return &RefusedError{
			What:   fmt.Sprintf("%s: the verifier of Linux %s %s", doing, release(), does),
			Reason: lastWord(refused.Log, refused.Cause),
			Log:    refused.Log,
			Err:    err,
		}
	}
	if errors.Is(err, ebpf.ErrNotSupported) {
		return &MissingError{
			What: fmt.Sprintf("%s needs what Linux %s lacks (%v)", doing, release(), err),
			Hint: "use a newer kernel, or one that is built with it",
			Err:  err,
		}
	}
	return diagnose(doing, err)
}

// release is the kernel's version.
func release() string {
	var name unix.Utsname
	_ = unix.Uname(&name)
	return unix.ByteSliceToString(name.Release[:])
}

// summary matches what the verifier says at the end whatever the outcome.
var summary = regexp.MustCompile(`^(processed \d+ insns|verification time|stack depth|max_states|insns_state)`)

// lastWord is the last line of a verifier's log that is about the program.
func lastWord(log []string, cause error) string {
	// From 7.x on, a report of many lines explains the line before it.
	report := slices.IndexFunc(log, func(line string) bool { return strings.HasPrefix(line, "Verification failed:") })
	if report > 0 {
		log = log[:report]
	}
	for i := len(log) - 1; i >= 0; i-- {
		if line := strings.TrimSpace(log[i]); line != "" && !summary.MatchString(line) {
			return line
		}
	}
	return cause.Error()
}

var (
	kfuncName = regexp.MustCompile(`kfunc "([^"]+)"`)
	// What verifiers say of a helper that the kernel, or this type of program, has not.
	noHelper = regexp.MustCompile(`(?:unknown func|invalid func|cannot use helper) (\w+)#(\d+)`)
	// What they say of instructions that are newer than they.
	noInstruction = regexp.MustCompile(`unknown opcode|reserved field|unknown insn|invalid BPF_`)
	// Absolute loads in a function: from 5.10 on.
	noLoad = regexp.MustCompile(`LD_.*mixed with bpf-to-bpf calls`)
)

// missing names what the filter needs and the kernel lacks, or nothing. The
// kernel is asked only after a failure.
func (v *Verdict) missing(err error, refused *ebpf.VerifierError) string {
	if m := kfuncName.FindStringSubmatch(err.Error()); m != nil && refused == nil {
		return "the kernel function " + m[1] + " (kfunc)"
	}
	for _, m := range v.spec.Maps {
		if errors.Is(features.HaveMapType(m.Type), ebpf.ErrNotSupported) {
			return fmt.Sprintf("maps of type %v (%s)", m.Type, m.Name)
		}
	}
	if refused == nil {
		return ""
	}
	last := lastWord(refused.Log, refused.Cause)
	helper := noHelper.FindStringSubmatch(last)
	switch {
	case helper != nil && helper[1] == "unknown":
		return "the helper number " + helper[2]
	case helper != nil:
		return "the helper " + helper[1] + " for socket filters"
	case noInstruction.MatchString(last):
		return missingInstructions()
	case noLoad.MatchString(last):
		return "absolute loads inside of functions (Linux 5.10)"
	}
	return ""
}

// missingInstructions names the oldest set of instructions that the kernel lacks.
func missingInstructions() string {
	for _, set := range []struct {
		name string
		have func() error
	}{{"v2", features.HaveV2ISA}, {"v3", features.HaveV3ISA}, {"v4", haveV4}} {
		if errors.Is(set.have(), ebpf.ErrNotSupported) {
			return "the instructions of clang's -mcpu=" + set.name
		}
	}
	return ""
}

// haveV4 tries a load that extends the sign: the probe of package features
// tries a long jump, which 6.1 takes already.
func haveV4() error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SocketFilter, Instructions: asm.Instructions{
		asm.StoreImm(asm.R10, -8, 0, asm.Word),
		asm.LoadMemSX(asm.R0, asm.R10, -8, asm.Byte),
		asm.Return(),
	}})
	if errors.Is(err, unix.EINVAL) {
		return ebpf.ErrNotSupported
	}
	if err == nil {
		program.Close()
	}
	return err
}

// VerifierLog is all that the kernel's verifier said of a program that it
// refused, a line each; nothing if an error is of another kind.
func VerifierLog(err error) []string {
	var refused *ebpf.VerifierError
	if !errors.As(err, &refused) {
		return nil
	}
	return refused.Log
}
