package capture

import (
	"context"
	"fmt"
	"net"
	"testing"
)

// Several captures of one process at the same time: each has everything.
func TestCapturesAtOnce(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 10} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			checkCapturesAtOnce(t, n)
		})
	}
}

func checkCapturesAtOnce(t *testing.T, n int) {
	streams := startTarget(t, "echo", "tcp4", "127.0.0.1:0")
	before := streams.dial(t, "tcp", streams.address)
	exchange(t, before, "before them all. ")

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sinks, done := make([]memory, n), make(chan error)
	var captures []*Live
	for i := range n {
		l := mustJoin(t, JoinConfig{PIDs: []int{streams.Process.Pid}})
		defer l.Close()
		captures = append(captures, l)
		go func() { done <- l.Run(ctx, &sinks[i]) }()
	}
	exchange(t, before, "and goes on")
	var conns []net.Conn
	for i := range 20 {
		conn := streams.dial(t, "tcp", streams.address)
		for range 5 {
			exchange(t, conn, fmt.Sprintf("of connection %d. ", i))
		}
		conns = append(conns, conn)
	}
	for _, l := range captures {
		quiet(t, l)
	}
	cancel()
	for range captures {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	for _, l := range captures {
		skipMissed(t, l)
		checkLiveLedger(t, l)
	}
	for i := range sinks {
		checkWholeFrom(t, &sinks[i], before.LocalAddr(), "and goes on")
		for n, conn := range conns {
			text := fmt.Sprintf("of connection %d. ", n)
			checkWholeFrom(t, &sinks[i], conn.LocalAddr(), text+text+text+text+text)
			checkHandshake(t, &sinks[i], conn.LocalAddr())
		}
	}
	checkNoFilter(t, streams.Process.Pid)
}
