package capture

import (
	"context"
	"sync/atomic"
	"testing"
	"time"
)

// looker is a sink for a watcher: it is told of each look at the ring.
type looker struct {
	memory
	looks atomic.Int64
}

// seen is how many packets there are in the kernel view so far.
func (l *looker) seen() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.view(ViewKernel))
}

func (l *looker) Flush() error {
	l.looks.Add(1)
	return nil
}

// While nothing comes nobody looks for it, even if somebody is watching, and what then
// comes is seen without anything that comes after it.
func TestIdle(t *testing.T) {
	t.Parallel()
	ns := mustNamespace(t)
	own, err := Open(Config{Kind: mustKind(t, "udp"), Namespace: ns, Options: Options{RingSize: smallRing, Immediate: true}})
	if err != nil {
		t.Fatal(err)
	}
	other := startTarget(t, "udp", "127.0.0.1:0")
	joined := mustJoin(t, JoinConfig{PIDs: []int{other.Process.Pid}, Options: Options{RingSize: smallRing, Immediate: true}})
	for name, test := range map[string]struct {
		session interface {
			Run(context.Context, Sink) error
			Close() error
		}
		ns      *Namespace
		address string
		sleeps  bool
	}{
		"own":    {own, ns, own.Addr().String(), true},
		"joined": {joined, other.ns, other.address, joined.calls.EndsSleep()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			defer test.session.Close()
			var sink looker
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- test.session.Run(ctx, &sink) }()
			conn := dialFrom(t, test.ns, "udp", test.address)
			defer conn.Close()
			for n := range 3 {
				if _, err := conn.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				// Not in the user view: from Linux 7.0 on the kernel may pass a call over.
				for sink.seen() <= n {
					time.Sleep(time.Millisecond)
				}
				time.Sleep(100 * time.Millisecond) // what is done for it
				before := sink.looks.Load()
				time.Sleep(time.Second)
				if looks := sink.looks.Load() - before; looks > 20 && test.sleeps {
					t.Errorf("%d looks in an idle second", looks)
				}
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}
