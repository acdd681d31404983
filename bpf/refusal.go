package bpf

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"

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

// diagnose turns the error of loading a tap with the verdict into what the user
// can do about it. It looks first at the filter by itself: what the kernel says
// of that is about the user's own lines only.
func (v *Verdict) diagnose(err error) error {
	alone, aerr := v.load(true)
	if aerr == nil {
		alone.Close()
		return v.explain("the filter alone is fine, but the verifier of Linux %s refuses it inside of the tap, which needs some of the 512 bytes of stack itself", err)
	}
	return v.explain("the verifier of Linux %s refuses the filter", aerr)
}

func (v *Verdict) explain(what string, err error) error {
	doing := "loading " + v.name
	var refused *ebpf.VerifierError
	isRefused := errors.As(err, &refused)
	missing := v.missing(err, refused)
	switch {
	case missing != "":
		return &MissingError{
			What: fmt.Sprintf("%s needs %s, which Linux %s lacks", doing, missing, release()),
			Hint: "use a newer kernel, or a filter that does without",
			Err:  err,
		}
	case isRefused:
		return &RefusedError{What: doing + ": " + fmt.Sprintf(what, release()), Reason: lastWord(refused.Log, refused.Cause), Log: refused.Log, Err: err}
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
	noHelper = regexp.MustCompile(`unknown func |invalid func |cannot use helper `)
	// What they say of instructions that are newer than they.
	noInstruction = regexp.MustCompile(`unknown opcode|reserved field|unknown insn|invalid BPF_`)
	// Absolute loads in a function: from 5.10 on.
	noLoad = regexp.MustCompile(`LD_\[?ABS.*mixed with bpf-to-bpf calls`)
)

// missing names what the filter needs and the kernel lacks, or nothing. The
// kernel is asked only after a failure.
func (v *Verdict) missing(err error, refused *ebpf.VerifierError) string {
	if m := kfuncName.FindStringSubmatch(err.Error()); m != nil && refused == nil {
		return "the kernel function (kfunc) " + m[1]
	}
	for _, m := range v.spec.Maps {
		if errors.Is(features.HaveMapType(m.Type), ebpf.ErrNotSupported) {
			return fmt.Sprintf("maps of type %v (%s)", m.Type, m.Name)
		}
	}
	if refused == nil {
		if errors.Is(err, ebpf.ErrNotSupported) {
			return strings.TrimSuffix(lastCause(err), ": not supported")
		}
		return ""
	}
	last := lastWord(refused.Log, refused.Cause)
	switch {
	case noHelper.MatchString(last):
		return v.missingHelper()
	case noInstruction.MatchString(last):
		return missingInstructions()
	case noLoad.MatchString(last):
		return "absolute loads inside of functions (Linux 5.10)"
	}
	return ""
}

// lastCause is the error's text without what the layers above said they were doing.
func lastCause(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil || errors.Unwrap(inner) == nil {
			return err.Error()
		}
		err = inner
	}
}

func (v *Verdict) missingHelper() string {
	for _, ins := range v.spec.Programs[v.program].Instructions {
		if !ins.IsBuiltinCall() {
			continue
		}
		helper := asm.BuiltinFunc(ins.Constant)
		if errors.Is(features.HaveProgramHelper(ebpf.SocketFilter, helper), ebpf.ErrNotSupported) {
			return "the helper " + helperName(helper) + " in socket filters"
		}
	}
	return ""
}

// helperName is a helper's name in C: bpf_skb_load_bytes for FnSkbLoadBytes.
func helperName(helper asm.BuiltinFunc) string {
	name, known := strings.CutPrefix(helper.String(), "Fn")
	if !known {
		return fmt.Sprintf("number %d", helper)
	}
	var b strings.Builder
	b.WriteString("bpf")
	for _, r := range name {
		if unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// missingInstructions names the oldest set of instructions that the kernel lacks.
func missingInstructions() string {
	for _, set := range []struct {
		name string
		have func() error
	}{{"v2", features.HaveV2ISA}, {"v3", features.HaveV3ISA}, {"v4", features.HaveV4ISA}} {
		if errors.Is(set.have(), ebpf.ErrNotSupported) {
			return "the instructions of clang's -mcpu=" + set.name
		}
	}
	return ""
}
