package bpf

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/capability"
	"github.com/ebpfdump/ebpfdump/internal/skb"
)

// RefusedError says that the kernel's verifier refuses a filter.
type RefusedError struct {
	// What is refused, and which kernel refuses it.
	What string
	// Reason is what the filter does wrong, and where, or the last line of the verifier's log.
	Reason string
	// Hint is what to do about it; empty if only the log helps.
	Hint string
	// Unsized is the map without a size that is the reason, or empty.
	Unsized string
	// Err is what the kernel said. VerifierLog has all of it.
	Err error
}

func (e *RefusedError) Error() string {
	text := e.What + ": " + e.Reason
	if e.Hint != "" {
		text += ": " + e.Hint
	}
	return text
}

func (e *RefusedError) Unwrap() error { return e.Err }

// diagnose turns the error of loading the tap with the verdict into what the user can do
// about it. It loads the filter by itself first: the kernel's log of that is only about the
// user's own code.
func (v *Verdict) diagnose(err error) error {
	alone, aerr := v.load(true)
	if aerr != nil {
		return v.explain("refuses it", aerr)
	}
	alone.Close()
	return v.explain("takes it alone, but not inside of the tap, which needs room on the stack itself", err)
}

// explain says what is missing, or that the verifier refuses the filter: does is a clause.
func (v *Verdict) explain(does string, err error) error {
	doing := "loading " + v.name
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) {
		return v.explainRefusal(doing, does, refused, err)
	}
	if missing := v.missingOption(err); missing != nil {
		return missing
	}
	if m := v.unsized(err); m != "" {
		return &RefusedError{
			Unsized: m,
			What:    doing, Reason: "the map " + m + " has no size, which the program that the filter was made for gives it at run time",
			Hint: "give it one in the source, as in __uint(max_entries, 1024)", Err: err,
		}
	}
	missing, hint := v.missing(err)
	if missing == "" && errors.Is(err, ebpf.ErrNotSupported) {
		missing, hint = fmt.Sprintf("something (%v)", err), "use a newer kernel, or one that is built with it"
		if strings.Contains(err.Error(), "CO-RE") {
			missing, hint = "a description of the kernel's types (BTF) for its CO-RE relocations", "use a kernel with CONFIG_DEBUG_INFO_BTF"
		}
	}
	if missing != "" {
		return &MissingError{What: fmt.Sprintf("%s needs %s, which Linux %s lacks", doing, missing, release()), Hint: hint, Err: err}
	}
	return Diagnose(doing, err)
}

// explainRefusal translates the verifier's log into the user's terms, as far as possible.
func (v *Verdict) explainRefusal(doing, does string, refused *ebpf.VerifierError, err error) error {
	last, where := lastWord(refused.Log, refused.Cause), ""
	c, found := v.culprit(err, refused)
	if found {
		where = c.where()
		if perr := v.poisoned(c, err); perr != nil {
			return perr
		}
	}
	if m := noHelper.FindStringSubmatch(last); m != nil {
		number, _ := strconv.ParseUint(m[1], 10, 31)
		return v.missingHelper(asm.BuiltinFunc(number), where, err)
	}
	missing, hint := v.missing(err)
	switch {
	case missing != "":
	case noInstruction.MatchString(last):
		missing = missingInstructions()
	case noLoad.MatchString(last):
		missing = "absolute loads inside of functions (Linux 5.10)"
	}
	if missing != "" {
		return &MissingError{
			What: fmt.Sprintf("%s needs %s, which Linux %s lacks", doing, missing, release()),
			Hint: hint, Err: err,
		}
	}
	if unprivileged.MatchString(last) && !capability.CurrentPrivilege().Has(capPerfmon) {
		return LacksCapability(capPerfmon, fmt.Sprintf("%s, which lets addresses out%s,", doing, where), err)
	}
	r := &RefusedError{What: fmt.Sprintf("%s: the verifier of Linux %s %s", doing, release(), does), Reason: last + where, Err: err}
	for _, complaint := range complaints {
		if m := complaint.pattern.FindStringSubmatch(last); m != nil {
			var ins *asm.Instruction
			if found {
				ins = c.instruction()
			}
			r.Reason, r.Hint = complaint.explain(m, ins)
			if v.spec.Programs[v.program].Type == ebpf.SkReuseport && complaint.pattern == contextAccess {
				r.Reason, r.Hint = explainMeta(m, ins)
			}
			r.Reason += where
			break
		}
	}
	return r
}

// complaint is something that verifiers report and users can fix.
type complaint struct {
	pattern *regexp.Regexp
	// explain returns what the filter does, and the next step. ins may be nil.
	explain func(m []string, ins *asm.Instruction) (reason, hint string)
}

// contextAccess is the complaint about a field of what a program gets.
var contextAccess = regexp.MustCompile(`^invalid bpf_context access off=(-?\d+) size=(\d+)`)

var complaints = []complaint{
	{contextAccess, explainContext},
	{regexp.MustCompile(`^calling kernel function (\S+) is not allowed`), func(m []string, _ *asm.Instruction) (string, string) {
		return "socket filters may not call the kernel function " + m[1], "use a filter that does without"
	}},
	{regexp.MustCompile(`GPL`), func(m []string, _ *asm.Instruction) (string, string) {
		return "it calls what only programs under the GPL may call", `give the source a license, as in char _license[] SEC("license") = "GPL"`
	}},
	{regexp.MustCompile(`^BPF program is too large|too many states|The sequence of \d+ jumps is too complex`), func(m []string, _ *asm.Instruction) (string, string) {
		return m[0], "make its loops shorter, or its branches fewer"
	}},
	{regexp.MustCompile(`back-edge|infinite loop detected`), func(m []string, _ *asm.Instruction) (string, string) {
		return "it has a loop of which the verifier sees no end (" + m[0] + ")", "give the loop a constant bound, or unroll it"
	}},
}

// explainContext explains refused accesses to struct __sk_buff.
func explainContext(m []string, ins *asm.Instruction) (reason, hint string) {
	offset, _ := strconv.ParseInt(m[1], 10, 64)
	name, end := fmt.Sprintf("%s bytes at offset %s", m[2], m[1]), int64(0)
	fields := slices.DeleteFunc(skb.Fields(), func(f skb.Field) bool { return f.InSock })
	for i, f := range fields {
		from, to := int64(f.Offset), int64(f.Offset)+int64(f.Size)
		end = max(end, to)
		if strings.HasSuffix(f.Name, "]") && i+1 < len(fields) { // which goes on to the next field
			to = int64(fields[i+1].Offset)
		}
		if from <= offset && offset < to {
			name, _, _ = strings.Cut(f.Name, "[")
		}
	}
	switch {
	case offset < 0:
		return fmt.Sprintf("it accesses struct __sk_buff at offset %d, before its begin", offset), "correct the offset"
	case offset >= end:
		return fmt.Sprintf("it accesses struct __sk_buff at offset %d, behind its end, which is at %d", offset, end), "correct the offset"
	case name == "data" || name == "data_end" || name == "data_meta":
		return "socket filters may not read " + name + " of struct __sk_buff, the packet itself", "copy the packet's bytes with bpf_skb_load_bytes"
	case ins != nil && (ins.OpCode.Class() == asm.StXClass || ins.OpCode.Class() == asm.StClass):
		return "socket filters may not write " + name + " of struct __sk_buff", "use a filter that does without"
	}
	return "socket filters may not read " + name + " of struct __sk_buff", "use a filter that does without"
}

// explainMeta explains refused accesses to struct sk_reuseport_md.
func explainMeta(m []string, ins *asm.Instruction) (reason, hint string) {
	offset, _ := strconv.ParseInt(m[1], 10, 64)
	name, does := fmt.Sprintf("%s bytes at offset %s", m[2], m[1]), "read"
	for _, f := range skb.Reuseport() {
		if int64(f.Offset) <= offset && offset < int64(f.Offset)+int64(f.Size) {
			name = f.Name
		}
	}
	if ins != nil && (ins.OpCode.Class() == asm.StXClass || ins.OpCode.Class() == asm.StClass) {
		does = "write"
	}
	return fmt.Sprintf("programs that choose a socket may not %s %s of struct sk_reuseport_md", does, name), "use a program that does without"
}

// unprivileged matches what verifiers refuse only without CAP_PERFMON.
var unprivileged = regexp.MustCompile(`leaks addr|prohibited for !root|pointer comparison prohibited|pointer arithmetic .* prohibited|tried to (add|subtract) .* pointer`)

const capPerfmon = unix.CAP_PERFMON

// unsized is the name of the map without a size that caused an error; empty if none did.
func (v *Verdict) unsized(err error) string {
	if !errors.Is(err, unix.EINVAL) {
		return ""
	}
	for name, m := range v.spec.Maps {
		if m.MaxEntries == 0 && strings.Contains(err.Error(), "map "+name+":") {
			return name
		}
	}
	return ""
}

// release is the kernel's version.
func release() string {
	var name unix.Utsname
	_ = unix.Uname(&name)
	return unix.ByteSliceToString(name.Release[:])
}

// summary matches the lines with which every log of the verifier ends.
var summary = regexp.MustCompile(`^(processed \d+ insns|verification time|stack depth|max_states|insns_state)`)

// aboutProgram is a verifier's log without the report of many lines that, from
// 7.x on, explains the line before it.
func aboutProgram(log []string) []string {
	if report := slices.IndexFunc(log, func(line string) bool { return strings.HasPrefix(line, "Verification failed:") }); report > 0 {
		return log[:report]
	}
	return log
}

// dump matches the lines with which a verifier shows what it looked at, not what it says
// of it: instructions, the source's lines, the registers' states and the way to them.
var dump = regexp.MustCompile(`^(\d+: |; |from \d+ to \d+|(old|cur) state:|(frame\d+:? )?(R\d+|fp-\d+)(_\w+)?=|` +
	`caller:|callee:|returning from callee:|to caller at |mark_precise:|last_idx |regs=|parent |propagating |Validating |Func#\d+ )`)

// lastWord is the last sentence of a verifier's log that is about the program.
func lastWord(log []string, cause error) string {
	for _, line := range slices.Backward(aboutProgram(log)) {
		if line = strings.TrimSpace(line); line != "" && !summary.MatchString(line) && !dump.MatchString(line) {
			return line
		}
	}
	return cause.Error()
}

var (
	kfuncName = regexp.MustCompile(`kfunc "([^"]+)"`)
	// The errors for a helper that the kernel lacks, or does not offer to this program type.
	noHelper = regexp.MustCompile(`(?:unknown func|invalid func|cannot use helper) \w+#(\d+)`)
	// The errors for instructions that are newer than the kernel.
	noInstruction = regexp.MustCompile(`unknown opcode|reserved field|unknown insn|invalid BPF_`)
	// The error for absolute loads inside of functions, before 5.10.
	noLoad = regexp.MustCompile(`LD_.*mixed with bpf-to-bpf calls`)
)

// missing names what the filter needs and the kernel lacks, empty if nothing is known, and
// the next step. It probes the kernel, and is called only after a failure.
func (v *Verdict) missing(err error) (what, hint string) {
	if m := kfuncName.FindStringSubmatch(err.Error()); m != nil && errors.Is(err, ebpf.ErrNotSupported) {
		// Whether another kernel has it, nobody knows.
		return "the kernel function " + m[1] + " (kfunc)", "check its name, or use a filter that does without"
	}
	hint = "use a newer kernel, or a filter that does without"
	for _, m := range v.spec.Maps {
		if errors.Is(features.HaveMapType(m.Type), ebpf.ErrNotSupported) {
			return fmt.Sprintf("maps of type %v (%s)", m.Type, m.Name), hint
		}
	}
	return "", hint
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

// VerifierLog is the verifier's log of a program that it refused, by lines; nil if the error
// is of another kind.
func VerifierLog(err error) []string {
	var refused *ebpf.VerifierError
	if !errors.As(err, &refused) {
		return nil
	}
	return refused.Log
}
