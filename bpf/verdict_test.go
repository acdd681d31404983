package bpf

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// decided sends datagrams through a tap with a verdict, and returns what it
// recorded of each and what then was received.
func decided(t *testing.T, v *Verdict, payloads ...string) (verdicts []int32, received []string) {
	t.Helper()
	tap := mustOpen(t, Options{RingSize: MinRingSize, Snaplen: MaxSnaplen, WakeupBytes: MinRingSize, Verdict: v})
	receiver, sender := udpPair(t)
	if err := tap.Attach(receiver); err != nil {
		t.Fatal(err)
	}
	barrier := testutil.NewBarrier(t)
	for _, p := range payloads {
		barrier.Send(t, sender, []byte(p))
		buf := make([]byte, 256)
		n, _, err := unix.Recvfrom(receiver, buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			received = append(received, "(dropped)")
		case err != nil:
			t.Fatal(err)
		default:
			received = append(received, string(buf[:n]))
		}
	}
	var dropped uint64
	readAll(t, tap, func(rec *Record) {
		verdicts = append(verdicts, rec.Verdict)
		if rec.Verdict == 0 {
			dropped++
		}
		if want := payloads[len(verdicts)-1]; string(rec.Data[8:]) != want {
			t.Errorf("recorded %q, want %q", rec.Data[8:], want)
		}
	})
	c, err := tap.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if c.Seen != uint64(len(payloads)) || c.Recorded != c.Seen || c.Dropped != dropped {
		t.Errorf("%+v, and %d packets were dropped", c, dropped)
	}
	return verdicts, received
}

// Filters of many sorts inside the tap: with maps, variables, functions, with
// and without BTF, with the tap's own names, with tail calls and absolute loads.
func TestFilterInTap(t *testing.T) {
	t.Parallel()
	requirePrivilege(t)
	for _, test := range []struct {
		object, program, flag string
		verdicts              []int32
		received              []string
	}{
		{object: "keep12", flag: "-g", verdicts: []int32{12, 12, 12}, received: []string{"0123", "7xyz", ""}},
		{object: "digits", flag: "-g", verdicts: []int32{13, 9, 0}, received: []string{"01234", "7", "(dropped)"}},
		{object: "digits", flag: "-g0", verdicts: []int32{13, 9, 0}, received: []string{"01234", "7", "(dropped)"}},
		{object: "clash", flag: "-g", verdicts: []int32{1013, 1014, 1015}, received: []string{"0123456789", "7xyz", ""}},
		{object: "tailcall", program: "tailcall", flag: "-g", verdicts: []int32{41, 42, 43}, received: []string{"0123456789", "7xyz", ""}},
		{object: "tailcall", program: "target", flag: "-g", verdicts: []int32{41, 42, 43}, received: []string{"0123456789", "7xyz", ""}},
		{object: "legacy", flag: "-g", verdicts: []int32{96, 110, 0}, received: []string{"0123456789", "7xyz", "(dropped)"}},
		{object: "paths", flag: "-g", verdicts: []int32{1010, 1004, 1000}, received: []string{"0123456789", "7xyz", ""}},
		{object: "several", program: "second", flag: "-g", verdicts: []int32{2, 2, 2}, received: []string{"", "", ""}},
	} {
		t.Run(test.object+test.program+test.flag, func(t *testing.T) {
			t.Parallel()
			v := mustRead(t, object(t, test.object, test.flag), test.program)
			verdicts, received := decided(t, v, "0123456789", "7xyz", "")
			if !slices.Equal(verdicts, test.verdicts) || !slices.Equal(received, test.received) {
				t.Errorf("verdicts %v, received %q, want %v, %q", verdicts, received, test.verdicts, test.received)
			}
		})
	}
}

func TestKeep(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		keep int32
		user string
	}{
		{-1, "0123456789\n"}, {100, "0123456789\n"}, {12, "0123"}, {8, ""}, {1, ""}, {0, "(dropped)"},
	} {
		verdicts, received := decided(t, Keep(test.keep), "0123456789\n")
		if !slices.Equal(verdicts, []int32{test.keep}) || received[0] != test.user {
			t.Errorf("keep %d: verdicts %v, received %q", test.keep, verdicts, received)
		}
	}
}

// A filter's maps can be looked into while the tap is on, and two taps have two
// sets of them.
func TestFilterMaps(t *testing.T) {
	t.Parallel()
	requirePrivilege(t)
	v := mustRead(t, object(t, "oddports", "-g"), "")
	for range 2 {
		tap := mustOpen(t, Options{RingSize: MinRingSize, WakeupBytes: MinRingSize, Verdict: v})
		receiver, sender := udpPair(t)
		if err := tap.Attach(receiver); err != nil {
			t.Fatal(err)
		}
		testutil.NewBarrier(t).Send(t, sender, []byte("x"))
		from, err := unix.Getsockname(sender)
		if err != nil {
			t.Fatal(err)
		}
		odd := uint32(from.(*unix.SockaddrInet4).Port & 1)
		var counts [2]uint64
		for i := range counts {
			if err := tap.filter.Maps["counts"].Lookup(uint32(i), &counts[i]); err != nil {
				t.Fatal(err)
			}
		}
		want := [2]uint64{}
		want[odd] = 1
		if counts != want {
			t.Errorf("port %v: counts %v", odd, counts)
		}
	}
}

// What the kernel refuses, and what the user is told: what is wrong, where, and
// the next step. The verifier's log is there each time that there is one.
func TestFilterRefused(t *testing.T) {
	t.Parallel()
	requirePrivilege(t)
	const (
		correct = "correct it for this kernel, or ask with "
		without = ": use a filter that does without"
	)
	for _, test := range []struct {
		object, program string
		missing         bool // a feature of the kernel is
		btf             bool // needs to know the kernel's types
		want            string
	}{
		{"wild", "", false, false, ` refuses it: R1 invalid mem access '\w+' \(function wild, wild.c:\d+\)$`},
		{"greedy", "", false, false, ` takes it alone, but not inside of the tap, which needs room on the stack itself: combined stack size of `},
		{"kfunc", "", true, true, ` needs the kernel function ebpfdump_no_such_kfunc \(kfunc\), which Linux \S+ lacks: check its name, or use a filter that does without$`},
		{"helper", "unheard", true, false, `: it calls the helper number 9999 \(function unheard, helper.c:\d+\), and no kernel has one of that number: look for `},
		{"helper", "forbidden", true, false, `: it calls the helper bpf_redirect \(function forbidden, helper.c:\d+\), and no kernel offers it to socket filters` + without},
		{"mendable", "storage", true, false, `: it calls the helper bpf_sk_storage_get \(function storage, mendable.c:\d+\), and no kernel offers it to socket filters` + without},
		{"mendable", "packet", false, false, ` refuses it: socket filters may not read data_end of struct __sk_buff, the packet itself \(function packet, mendable.c:\d+\): copy the packet's bytes with bpf_skb_load_bytes$`},
		{"mendable", "remote", false, false, ` refuses it: socket filters may not read remote_ip4 of struct __sk_buff \(function remote, mendable.c:\d+\)` + without},
		{"mendable", "mark", false, false, ` refuses it: socket filters may not write mark of struct __sk_buff \(function mark, mendable.c:\d+\)` + without},
		{"mendable", "size", false, false, `: the map unsized has no size, which the program that the filter was made for gives it at run time: give it one in the source, as in __uint\(max_entries, 1024\)$`},
		{"coremissing", "offset", true, true, ` needs struct ebpfdump_unheard with its field second, which Linux \S+ lacks \(function offset, coremissing.c:\d+\): ` + correct + "bpf_core_field_exists before the access"},
		{"coremissing", "access", true, true, ` needs the field deep\[2\] of struct sk_buff___other, which Linux \S+ lacks \(function access, coremissing.c:\d+\): ` + correct + "bpf_core_field_exists before the access"},
		{"coremissing", "size", true, true, ` needs the type struct ebpfdump_unheard, which Linux \S+ lacks \(function size, coremissing.c:\d+\): ` + correct + "bpf_core_type_exists before the access"},
		{"coremissing", "value", true, true, ` needs the value EBPFDUMP_UNHEARD_MAP___other of enum bpf_map_type___other, which Linux \S+ lacks \(function value, coremissing.c:\d+\): ` + correct + "bpf_core_enum_value_exists before the access"},
		{"coremissing", "kfunc", true, true, ` needs the kernel function ebpfdump_unheard_kfunc \(kfunc\), which Linux \S+ lacks \(function kfunc, coremissing.c:\d+\): check its name, or ask with bpf_ksym_exists before the call$`},
	} {
		t.Run(test.object+test.program, func(t *testing.T) {
			t.Parallel()
			if test.btf {
				requireTypes(t)
			}
			v := mustRead(t, object(t, test.object, "-g"), test.program)
			tap, err := Open(Options{RingSize: MinRingSize, Verdict: v})
			if err == nil {
				tap.Close()
				t.Fatal("it is taken")
			}
			if text := err.Error(); !strings.HasPrefix(text, "loading "+v.Name()) || !regexp.MustCompile(test.want).MatchString(text) || strings.Contains(text, "\n") {
				t.Errorf("%v, want %q", err, test.want)
			}
			var (
				missing *MissingError
				refused *RefusedError
			)
			if errors.As(err, &missing) != test.missing || errors.As(err, &refused) == test.missing {
				t.Errorf("%T", err)
			}
			if loads := test.object != "kfunc" && test.program != "size" || test.object == "coremissing"; loads && len(VerifierLog(err)) < 2 {
				t.Errorf("log %q", VerifierLog(err))
			}
		})
	}
}

// The reason is the verifier's sentence, and not what it shows behind it. What is outside of
// struct __sk_buff is no field of it.
func TestRefusedInstructions(t *testing.T) {
	t.Parallel()
	requirePrivilege(t)
	load := func(offset int16) asm.Instructions {
		return asm.Instructions{asm.LoadMem(asm.R0, asm.R1, offset, asm.Word), asm.Return()}
	}
	for name, test := range map[string]struct {
		program asm.Instructions
		want    string
	}{
		"loop": {asm.Instructions{
			asm.Mov.Imm(asm.R0, 0),
			asm.Add.Imm(asm.R0, 0).WithSymbol("again"),
			asm.JNE.Imm(asm.R0, 1, "again"),
			asm.Return(),
		}, ` refuses it: it has a loop of which the verifier sees no end \(infinite loop detected\): give the loop a constant bound, or unroll it$`},
		"behind": {load(3000), ` refuses it: it accesses struct __sk_buff at offset 3000, behind its end, which is at \d+: correct the offset$`},
		"second": {load(120), ` refuses it: socket filters may not read local_ip6 of struct __sk_buff: use a filter that does without$`},
		"type": {asm.Instructions{
			asm.Mov.Imm(asm.R2, 0), asm.Mov.Reg(asm.R3, asm.R1), asm.Mov.Imm(asm.R4, 4), asm.FnSkbLoadBytes.Call(), asm.Return(),
		}, ` refuses it: R3 type=ctx expected=`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := OpenRunner(newVerdict("odd", test.program))
			var refused *RefusedError
			if !errors.As(err, &refused) || !regexp.MustCompile(test.want).MatchString(err.Error()) {
				t.Errorf("%v, want %q\n%s", err, test.want, strings.Join(VerifierLog(err), "\n"))
			}
		})
	}
}

// Every field of struct __sk_buff is called by its name from its first byte to its last.
func TestExplainContext(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ offset, want string }{
		{"-4", "it accesses struct __sk_buff at offset -4, before its begin"},
		{"192", "it accesses struct __sk_buff at offset 192, behind its end, which is at 192"},
		{"70000", "it accesses struct __sk_buff at offset 70000, behind its end, which is at 192"},
		{"181", "socket filters may not read 4 bytes at offset 181 of struct __sk_buff"},
		{"64", "socket filters may not read cb of struct __sk_buff"},
		{"112", "socket filters may not read remote_ip6 of struct __sk_buff"},
		{"128", "socket filters may not read local_ip6 of struct __sk_buff"},
		{"148", "socket filters may not read flow_keys of struct __sk_buff"},
	} {
		if got, _ := explainContext([]string{"", test.offset, "4"}, nil); got != test.want {
			t.Errorf("%s: %s, want %s", test.offset, got, test.want)
		}
	}
}

// requireTypes ends a test that needs the kernel's BTF.
func requireTypes(t *testing.T) {
	t.Helper()
	if _, err := btf.LoadKernelSpec(); err != nil {
		testutil.Missing(t, "needs the kernel's types: %v", err)
	}
}

// A relocation that cannot be satisfied does no harm where the filter asks first.
func TestFilterAsksFirst(t *testing.T) {
	t.Parallel()
	requirePrivilege(t)
	requireTypes(t)
	verdicts, _ := decided(t, mustRead(t, object(t, "coremissing", "-g"), "guarded"), "0123456789")
	if !slices.Equal(verdicts, []int32{12}) {
		t.Errorf("verdicts %v", verdicts)
	}
}

// What other loaders leave in an object in the place of what they did not find.
func TestFilterPoisoned(t *testing.T) {
	t.Parallel()
	requirePrivilege(t)
	call := func(number asm.BuiltinFunc) asm.Instructions { return asm.Instructions{number.Call(), asm.Return()} }
	for _, test := range []struct {
		program asm.Instructions
		want    string
	}{
		{call(poisonedRelocation), "needs something of the kernel's types for a CO-RE relocation, which Linux "},
		{asm.Instructions{asm.LoadImm(asm.R10, poisonedRelocation, asm.DWord), asm.Mov.Imm(asm.R0, 0), asm.Return()}, "needs something of the kernel's types for a CO-RE relocation, which Linux "},
	} {
		_, err := OpenRunner(newVerdict("poisoned", test.program))
		var missing *MissingError
		if !errors.As(err, &missing) || !strings.Contains(err.Error(), test.want) || len(VerifierLog(err)) == 0 {
			t.Errorf("%v: %v, want %q", test.program, err, test.want)
		}
	}
}

// Instructions that only newer kernels know run, or are called missing.
func TestFilterOfNewerKernels(t *testing.T) {
	t.Parallel()
	requirePrivilege(t)
	v := mustRead(t, object(t, "modern", "-g"), "")
	tap, err := Open(Options{RingSize: MinRingSize, Verdict: v})
	if err == nil {
		tap.Close()
		return
	}
	var missing *MissingError
	if !errors.As(err, &missing) || !strings.Contains(err.Error(), "needs the instructions of clang's -mcpu=v4, which Linux ") {
		t.Errorf("%v", err)
	}
}

func TestRefusalTexts(t *testing.T) {
	t.Parallel()
	log := []string{"0: (85) call bpf_x#1", "R0 !read_ok", "verification time 3 usec", "stack depth 8", "processed 1 insns (limit 1000000)", ""}
	if got := lastWord(log, unix.EACCES); got != "R0 !read_ok" {
		t.Errorf("last word %q", got)
	}
	// What verifiers from 5.10 on show of states behind their sentence.
	for _, dumped := range []string{
		"old state: R1=scalar(id=1) R10=fp0", "cur state: R0=P0", "0: R1=ctx() R10=fp0", " R0_w=inv1 R10=fp0", "fp-8=mmmm????", " frame1: R1=ctx() R10=fp0",
		"12: (b7) r0 = 0                       ; R0=0", "; return 0; @ f.c:3", "from 2 to 4: R0=1 R10=fp0", "from 2 to 4: safe",
		"last_idx 3 first_idx 0", "regs=1 stack=0 before 2: (b7) r0 = 0", "mark_precise: frame0: last_idx 3 first_idx 0", "parent didn't have regs=1 stack=0 marks",
		"caller:", "callee:", "returning from callee:", "to caller at 3:", "Func#1 is safe for any args that match its prototype",
	} {
		if got := lastWord([]string{"infinite loop detected at insn 2", dumped, log[4]}, unix.EINVAL); got != "infinite loop detected at insn 2" {
			t.Errorf("last word %q", got)
		}
	}
	for _, said := range []string{"R1 type=ctx expected=fp", "R2 min value is negative, either use unsigned or 'var &= const'", "R0 !read_ok", "invalid bpf_context access off=3000 size=4"} {
		if got := lastWord([]string{"0: (b7) r0 = 0", said, log[4]}, unix.EINVAL); got != said {
			t.Errorf("last word %q, want %q", got, said)
		}
	}
	if got := lastWord(nil, unix.E2BIG); got != unix.E2BIG.Error() {
		t.Errorf("last word of nothing %q", got)
	}
	v := Keep(1)
	noBTF := &wrapped{"program filter: load kernel spec: no BTF", ebpf.ErrNotSupported}
	var missing *MissingError
	if err := v.explain("refuses it", noBTF); !errors.As(err, &missing) || !strings.Contains(err.Error(), "no BTF") {
		t.Errorf("%v", err)
	}
	mixed := &ebpf.VerifierError{Cause: unix.EINVAL, Log: []string{"BPF_LD_[ABS|IND] instructions cannot be mixed with bpf-to-bpf calls"}}
	if err := v.explain("refuses it", mixed); !errors.As(err, &missing) || !strings.Contains(err.Error(), "absolute loads") {
		t.Errorf("%v", err)
	}
	if err := v.explain("refuses it", unix.ENOMEM); errors.As(err, &missing) || !errors.Is(err, unix.ENOMEM) {
		t.Errorf("%v", err)
	}
}

type wrapped struct {
	text string
	err  error
}

func (w *wrapped) Error() string { return w.text + ": " + w.err.Error() }
func (w *wrapped) Unwrap() error { return w.err }

// What a verdict keeps of a datagram of 8 + 11 bytes, and what the tap says of it.
func TestVerdict(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		keep int32
		user string
	}{
		{-1, "0123456789\n"}, {100, "0123456789\n"}, {12, "0123"}, {8, ""}, {1, ""},
	} {
		tap := mustOpen(t, Options{RingSize: MinRingSize, Verdict: Keep(test.keep)})
		receiver, sender := udpPair(t)
		if err := tap.Attach(receiver); err != nil {
			t.Fatal(err)
		}
		testutil.NewBarrier(t).Send(t, sender, []byte("0123456789\n"))
		buf := make([]byte, 64)
		n, _, err := unix.Recvfrom(receiver, buf, unix.MSG_DONTWAIT)
		if err != nil || string(buf[:n]) != test.user {
			t.Errorf("keep %d: received %q, %v, want %q", test.keep, buf[:max(n, 0)], err, test.user)
		}
		readAll(t, tap, func(rec *Record) {
			if rec.Verdict != test.keep || rec.Len != 19 {
				t.Errorf("keep %d: recorded verdict %d of %d bytes", test.keep, rec.Verdict, rec.Len)
			}
		})
	}
}

func TestVerdictDrops(t *testing.T) {
	t.Parallel()
	tap := mustOpen(t, Options{RingSize: MinRingSize, Verdict: Keep(0)})
	receiver, sender := udpPair(t)
	if err := tap.Attach(receiver); err != nil {
		t.Fatal(err)
	}
	testutil.NewBarrier(t).Send(t, sender, []byte("dropped"))
	if n, _, err := unix.Recvfrom(receiver, make([]byte, 16), unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("received %d bytes, %v through a verdict that drops all", n, err)
	}
	c, err := tap.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if c.Seen != 1 || c.Recorded != 1 || c.Dropped != 1 {
		t.Errorf("counters %+v", c)
	}
}
