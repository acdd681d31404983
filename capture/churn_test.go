package capture

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

const (
	churnThreads = 4
	churnRounds  = 20 // of each thread; the last one in a process of its own
)

// churnTexts are what a round sends itself: as a datagram, and over a connection.
func churnTexts(thread, round int) []string {
	name := fmt.Sprintf("%d of %d. ", round, thread)
	return []string{"datagram " + name, "stream " + name}
}

// targetChurn makes and closes sockets in several threads, and starts processes that
// do the same, when it is told to.
func targetChurn([]string) error {
	fmt.Println("ready")
	if _, err := os.Stdin.Read(make([]byte, 16)); err != nil {
		return err
	}
	var threads sync.WaitGroup
	errs := make([]error, churnThreads)
	for thread := range churnThreads {
		threads.Go(func() {
			for round := 0; round < churnRounds-1 && errs[thread] == nil; round++ {
				errs[thread] = churn(thread, round)
			}
			child := exec.Cmd{Path: "/proc/self/exe", Args: []string{targetName, "churned", fmt.Sprint(thread)}, Stderr: os.Stderr}
			if errs[thread] == nil {
				errs[thread] = child.Run()
			}
		})
	}
	threads.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return untilStdinEnds("done")
}

func targetChurned(args []string) error {
	var thread int
	if _, err := fmt.Sscan(args[0], &thread); err != nil {
		return err
	}
	return churn(thread, churnRounds-1)
}

// churn sends the texts of a round over sockets that live no longer than that.
func churn(thread, round int) error {
	texts := churnTexts(thread, round)
	receiver, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer receiver.Close()
	if _, err := receiver.WriteTo([]byte(texts[0]), receiver.LocalAddr()); err != nil {
		return err
	}
	if _, _, err := receiver.ReadFrom(make([]byte, 100)); err != nil {
		return err
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	client, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		return err
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		return err
	}
	defer server.Close()
	if _, err := io.WriteString(client, texts[1]); err != nil {
		return err
	}
	_, err = io.ReadFull(server, make([]byte, len(texts[1])))
	return err
}

// Sockets and processes come and go in many threads, while others ask the session for
// all that it can be asked for: whatever was received is there once in each view.
func TestJoinChurn(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "churn")
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}})
	over := make(chan struct{})
	var askers sync.WaitGroup
	for range 2 {
		askers.Go(func() { askUntil(t, l, over) })
	}
	sink := runLive(t, l, func() {
		server.tell(t, "go")
		quiet(t, l)
		close(over)
		askers.Wait()
	})
	for _, v := range []View{ViewKernel, ViewUser} {
		got := sink.view(v)
		for thread := range churnThreads {
			for round := range churnRounds {
				for _, text := range churnTexts(thread, round) {
					if n := holding(got, text); n != 1 {
						t.Errorf("%q is in the %s view %d times", text, v, n)
					}
				}
			}
		}
	}
	checkPairs(t, sink)
}

// holding is how many packets end in a text.
func holding(packets []Packet, text string) (n int) {
	for i := range packets {
		if bytes.HasSuffix(packets[i].Data, []byte(text)) {
			n++
		}
	}
	return n
}

// askUntil asks a session for what it can be asked for while it runs.
func askUntil(t *testing.T, l *Live, over <-chan struct{}) {
	for {
		select {
		case <-over:
			return
		case <-time.After(time.Millisecond):
		}
		l.Sockets()
		l.Process()
		l.Capabilities()
		l.Status()
		if _, err := l.Counts(); err != nil {
			t.Error(err)
		}
	}
}
