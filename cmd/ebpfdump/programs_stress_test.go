package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// connectionsAtOnce is how many connections are made in quick succession.
const connectionsAtOnce = 5000

// stressPrograms use sockets in ways that are hard to follow, and have sockets that must
// not be recorded.
var stressPrograms = []program{
	stress("opens", []string{"true"}, scope{calls: []uint16{9000}}, func(b *bench) {
		b.serveAnswers("127.0.0.1:9000")
		b.tell()
	}),
	stress("accepts", streamsReady, streamScope, func(b *bench) {
		for i := range connectionsAtOnce {
			b.ask(echoStreams, i)
		}
	}),
	stress("one port", []string{"true"}, scope{calls: []uint16{9000}}, func(b *bench) {
		b.serveAnswers("127.0.0.1:9000")
		b.tell()
	}),
	stress("half closed", []string{"true"}, scope{calls: []uint16{9000}}, func(b *bench) {
		b.serveAnswers("127.0.0.1:9000")
		b.tell()
	}),
	stress("listeners", streamsReady, scope{serves: []uint16{7100, 7102, 7103}}, func(b *bench) {
		for i := range 40 {
			for _, address := range []string{"127.0.0.1:7100", "127.0.0.9:7100", "[::1]:7100", "127.0.0.2:7102", "127.0.0.3:7102", "127.0.0.1:7103"} {
				b.ask(address, i)
			}
		}
	}),
	stress("connected anew", []string{"true"}, scope{calls: []uint16{7201, 7202}}, func(b *bench) {
		b.serveDatagrams("127.0.0.1:7201")
		b.serveDatagrams("127.0.0.1:7202")
		b.tell()
	}),
	stress("files", streamsReady, streamScope, echoOne),
	stress("two ports", bothReady, streamScope, bothPorts).with("port", "--port", "7100"),
	stress("two ports", bothReady, streamScope, bothPorts).with("fd", "--fd", "50"),
	handover(),
}

// stress is a row of testdata/programs/stress.py.
func stress(way string, ready []string, s scope, traffic func(*bench)) program {
	return program{
		name: "stress " + way, needs: []string{"python3", "bash"}, common: true,
		prepare: func(b *bench) {
			b.script("stress.py")
			b.must("sh", "-c", "echo 20000 60000 >/proc/sys/net/ipv4/ip_local_port_range")
		},
		server: []string{"python3", "stress.py", way}, ready: ready, scope: s, traffic: traffic,
	}
}

// with returns a row with flags added.
func (p program) with(name string, flags ...string) program {
	p.name, p.flags = p.name+" "+name, flags
	return p
}

// handover passes its connections to a process that is not followed: what that reads must
// not be recorded.
func handover() program {
	p := stress("hands over", streamsReady, streamScope, echoOne)
	p.aside, p.asideReady = []string{"python3", "stress.py", "takes over"}, []string{"test", "-S", "handover"}
	p.unread = true
	p.check = func(b *bench, r *recording) {
		for _, p := range b.packets(r.file) {
			if p.user && len(p.data) > 0 {
				b.Errorf("frame %d was read by a process that nobody follows: %v", p.frame, &p)
			}
		}
	}
	return p
}

// tell starts a client, and waits until it is done.
func (b *bench) tell() {
	b.Helper()
	b.write("go", nil)
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(b.dir, "done")); err == nil {
			return
		}
		if time.Since(begin) > testTimeout {
			b.Fatal("the client is not done")
		}
	}
}

// serveAnswers answers one question of each connection, and closes first.
func (b *bench) serveAnswers(address string) {
	b.Helper()
	listener := b.listen(address)
	b.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			question := make([]byte, 100)
			n, err := conn.Read(question)
			if err == nil {
				fmt.Fprintf(conn, "answer to %s", question[:n])
			}
			conn.Close()
		}
	}()
}

// serveDatagrams is an echo server.
func (b *bench) serveDatagrams(address string) {
	b.Helper()
	var conn net.PacketConn
	err := b.ns.Do(func() (err error) {
		conn, err = net.ListenPacket("udp", address)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	go echoPackets(conn)
}

// ask asks a server for one answer.
func (b *bench) ask(address string, number int) {
	b.Helper()
	conn := b.dial("tcp", address)
	defer conn.Close()
	fmt.Fprintf(conn, "question %d", number)
	if got, err := io.ReadAll(conn); err != nil || string(got) != fmt.Sprintf("answer to question %d", number) {
		b.Errorf("question %d: %q, %v", number, got, err)
	}
}

// echoOne has a conversation on each of some connections, one after the other.
func echoOne(b *bench) {
	b.Helper()
	for i := range 10 {
		conn := b.dial("tcp", echoStreams)
		for n := range 4 {
			message := fmt.Sprintf("message %d of connection %d.", n, i)
			back := make([]byte, len(message))
			fmt.Fprint(conn, message)
			if _, err := io.ReadFull(conn, back); err != nil || string(back) != message {
				b.Errorf("sent %q, got %q: %v", message, back, err)
			}
		}
		b.halfClose(conn)
	}
}

var bothReady = []string{"bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/7300"}

// bothPorts makes requests to a selected port and to another one.
func bothPorts(b *bench) {
	for i := range 10 {
		b.ask(echoStreams, i)
		b.ask(strings.Replace(echoStreams, "7100", "7300", 1), i)
	}
}
