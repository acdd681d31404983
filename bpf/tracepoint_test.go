package bpf

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// TestCallsLeaveNothing closes what follows calls: nothing of it stays in the kernel, and
// there is nobody who waits for the ends of the tracepoints.
func TestCallsLeaveNothing(t *testing.T) {
	t.Parallel()
	calls := mustFollow(t, CallsOptions{RingSize: MinRingSize})
	if s := &calls.single; s.holder == nil && calls.way == atTracepoints || s.holder != nil && int(s.holder.next) != len(s.points) {
		t.Errorf("of %d tracepoints the holder has %+v", len(s.points), s.holder)
	}
	awaitGone(t, calls)
}

// awaitGone closes, and waits until the kernel has given up the programs.
func awaitGone(t *testing.T, calls *Calls) {
	t.Helper()
	var ids []ebpf.ProgramID
	for _, p := range calls.objects.programs {
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		ids = append(ids, id)
	}
	if err := calls.Close(); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			p, err := ebpf.NewProgramFromID(id)
			if err != nil {
				break
			}
			p.Close()
			if time.Since(begin) > time.Minute {
				t.Fatalf("program %d is still there", id)
			}
		}
	}
}

// Where attaching to the tracepoints of single calls fails midway, nothing stays attached there
// beside the raw ones: neither as a link, nor as before Linux 5.15, when a program belonged to the
// perf event.
func TestCallsFallBack(t *testing.T) {
	t.Parallel()
	if Preemptible() {
		t.Skip("these tracepoints are not used from Linux 7.0 on")
	}
	requirePrivilege(t)
	for name, attach := range map[string]attachFunc{"link": (*perfEvent).attach, "event": func(p *perfEvent, program *ebpf.Program) error {
		return unix.IoctlSetInt(p.fd, unix.PERF_EVENT_IOC_SET_BPF, program.FD())
	}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			receiver, sender := udpPair(t)
			refused := errors.New("refused")
			attached := make(map[ebpf.ProgramID]string) // to a tracepoint
			var mu sync.Mutex
			opts := CallsOptions{RingSize: MinRingSize, Sends: true, attach: func(p *perfEvent, program *ebpf.Program) error {
				if p.name == "syscalls/sys_enter_accept4" || p.name == "syscalls/sys_enter_sendmmsg" {
					return refused
				}
				info, err := program.Info()
				if err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				id, _ := info.ID()
				attached[id] = p.name
				return attach(p, program)
			}}
			r := mustFollow(t, opts, receiver, sender)
			if r.way != atRawTracepoints || r.sends.way != atRawTracepoints || len(attached) != 4 {
				t.Fatalf("attached in the ways %v and %v after %v", r.way, r.sends.way, attached)
			}
			for id, name := range attached {
				if slices.Contains(programsAt(t, name), id) {
					t.Errorf("program %d is still at %s", id, name)
				}
			}
			if err := unix.Send(sender, []byte("once"), 0); err != nil {
				t.Fatal(err)
			}
			if n, err := unix.Read(receiver, make([]byte, 10)); n != 4 || err != nil {
				t.Fatal(n, err)
			}
			all := slices.DeleteFunc(events(t, r), func(e Event) bool { return !e.Kind().Receives() && !e.Kind().Sends() })
			if len(all) != 2 || all[0].Kind() != CallSendto || all[1].Kind() != CallRead {
				t.Errorf("%d calls: %+v", len(all), all)
			}
		})
	}
}

// programsAt asks the kernel which programs are attached to a tracepoint.
func programsAt(t *testing.T, name string) []ebpf.ProgramID {
	t.Helper()
	tracing, err := openTracefs()
	if err != nil {
		t.Fatal(err)
	}
	defer tracing.close()
	event, err := tracing.open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer event.Close()
	query := struct { // struct perf_event_query_bpf
		room, count uint32
		ids         [64]ebpf.ProgramID // as many as may be attached
	}{room: 64}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(event.fd), unix.PERF_EVENT_IOC_QUERY_BPF, uintptr(unsafe.Pointer(&query)))
	if errno != 0 {
		t.Fatal(errno)
	}
	return query.ids[:query.count]
}

func TestParseBlocked(t *testing.T) {
	t.Parallel()
	nr := map[string]string{"recvfrom": "45", "read": "0"}
	if unix.SYS_RECVFROM != 45 {
		t.Skip("the numbers are those of x86-64")
	}
	call, ok := parseBlocked(nr["recvfrom"] + " 0x4 0x7ffc1 0x200 0xffffffffffffffff 0x0 0x8 0x7ffe 0x7f31\n")
	want := callsBegunCall{Call: uint32(CallRecvfrom), Arguments: [6]uint64{4, 0x7ffc1, 0x200, 1<<64 - 1, 0, 8}}
	if !ok || call != want {
		t.Errorf("%+v, %t", call, ok)
	}
	// Among them a call that does not matter.
	for _, text := range []string{"", "running\n", "-1 0x7ffe 0x7f31\n", "45 0x4", "x 0 0 0 0 0 0 0 0", "45 0 0 0 0 0 zero 0 0", "232 0 0 0 0 0 0 0 0"} {
		if call, ok := parseBlocked(text); ok {
			t.Errorf("%q: %+v", text, call)
		}
	}
}

func FuzzParseBlocked(f *testing.F) {
	f.Add("45 0x4 0x7ffc1 0x200 0xffffffffffffffff 0x0 0x8 0x7ffe 0x7f31\n")
	f.Add("running")
	f.Fuzz(func(t *testing.T, text string) {
		if call, ok := parseBlocked(text); ok && !Call(call.Call).Receives() && call.Call < uint32(CallSocket) {
			t.Errorf("%q is call %d", text, call.Call)
		}
	})
}
