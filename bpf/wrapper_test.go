package bpf

import (
	"errors"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// TestWrapper holds what a socket gets with the wrapper against what it gets with the filter alone,
// what the wrapper records against that, and the state of the filter's map against both: while it
// records, after its lease has ended, after Stop and afterwards.
func TestWrapper(t *testing.T) {
	requirePrivilege(t)
	testutil.BPFFileSystem(t)
	barrier := testutil.NewBarrier(t)
	payloads := []string{"keep this", "drop this", "trim this", "k", ""}
	for _, c := range ownFilterCases() {
		t.Run(c.name, func(t *testing.T) {
			tap := mustOpen(t, Options{RingSize: MinRingSize, Snaplen: MaxSnaplen, Leased: true})
			hook := mustHook(t, tap, HookOptions{Record: true, TellFilters: true})
			receiver, sender := testutil.UDPPair(t)
			state := c.put(t, receiver)
			exchange := func() (got []string) {
				t.Helper()
				for _, payload := range payloads {
					barrier.Send(t, sender, []byte(payload))
					buffer := make([]byte, 100)
					if n, _, err := unix.Recvfrom(receiver, buffer, unix.MSG_DONTWAIT); err == nil {
						got = append(got, string(buffer[:n]))
					} else {
						got = append(got, "-")
					}
				}
				return got
			}
			value := func() (n uint32) {
				if state != nil {
					if err := state.Lookup(uint32(0), &n); err != nil {
						t.Fatal(err)
					}
				}
				return n
			}
			begin := value()
			alone := exchange()
			each := value() - begin
			filter, err := hook.Extended(receiver)
			if err != nil {
				t.Fatal(err)
			}
			filter.Classic = c.classic
			w, err := tap.Wrap(&filter)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(hook.Wraps(w), w.Attach(receiver)); err != nil {
				t.Fatal(err)
			}
			if _, err := hook.Mark(receiver); err != nil {
				t.Fatal(err)
			}
			if got := exchange(); !slices.Equal(got, alone) {
				t.Errorf("with the wrapper %q, without %q", got, alone)
			}
			for i, rec := range records(t, tap) {
				keep := int(rec.Verdict) - 8
				want := payloads[i]
				switch {
				case rec.Verdict == 0:
					want = "-"
				case rec.Verdict > 0:
					want = want[:max(0, min(keep, len(want)))]
				}
				if want != alone[i] || rec.Filter != filter.Key() || rec.Hook == HookNone || i >= len(payloads) {
					t.Errorf("packet %d: verdict %d of filter %x, the socket got %q", i, rec.Verdict, rec.Filter, alone[i])
				}
			}
			if err := tap.objects.LeaseEnd.Set(uint64(1)); err != nil {
				t.Fatal(err)
			}
			if got := exchange(); !slices.Equal(got, alone) {
				t.Errorf("after the lease %q, before %q", got, alone)
			}
			if err := errors.Join(tap.Renew(), tap.Stop()); err != nil {
				t.Fatal(err)
			}
			if got := exchange(); !slices.Equal(got, alone) {
				t.Errorf("stopped %q, before %q", got, alone)
			}
			if n := value() - begin; c.kind != 0 && each > 0 && n != 4*each {
				t.Errorf("its map has counted %d of %d", n, 4*each)
			}
			pin := w.pin
			if err := errors.Join(w.Restore(receiver), w.Close()); err != nil {
				t.Error(err)
			}
			if again, err := hook.Extended(receiver); err != nil || again.Program != filter.Program {
				t.Errorf("afterwards the filter is %+v, %v, before %+v", again, err, filter)
			}
			if got := exchange(); !slices.Equal(got, alone) {
				t.Errorf("restored %q, before %q", got, alone)
			}
			if _, err := os.Stat(pin); pin != "" && err == nil {
				t.Errorf("%s is left", pin)
			}
		})
	}
}
