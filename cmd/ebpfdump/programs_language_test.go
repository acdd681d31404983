package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"
)

// The servers of this file are echo servers on these ports.
const (
	echoStreams   = "127.0.0.1:7100"
	echoDatagrams = "127.0.0.1:7101"
)

var (
	streamsReady   = []string{"bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/7100"}
	datagramsReady = listensUDP(7101)
	streamScope    = scope{serves: []uint16{7100}}
	datagramScope  = scope{serves: []uint16{7101}}
)

var languagePrograms = []program{
	python("asyncio", streamsReady, scope{serves: []uint16{7100, 7101}}, func(b *bench) { echo(b); echoUDP(b) }),
	python("threading", streamsReady, streamScope, echo),
	// A child serves each connection, and the next one has the same descriptor number
	// while the child reads.
	python("forking", streamsReady, streamScope, echo).always(),
	python("forking exec", streamsReady, streamScope, echo).always(),
	// Each connection is passed to another process with SCM_RIGHTS.
	python("multiprocessing", streamsReady, streamScope, echo),
	python("peeking", streamsReady, scope{serves: []uint16{7100, 7101}}, func(b *bench) { echo(b); echoUDP(b) }),
	python("calls", streamsReady, streamScope, echo).always(),
	node("http", streamsReady, streamScope, func(b *bench) { b.requests(echoStreams) }),
	node("cluster", streamsReady, streamScope, func(b *bench) { b.requests(echoStreams) }),
	node("dgram", datagramsReady, datagramScope, echoUDP),
	node("io_uring", streamsReady, streamScope, func(b *bench) { b.requests(echoStreams) }),
	java("blocking", streamsReady, streamScope, echo),
	java("nio", streamsReady, streamScope, echo),
	java("datagram", datagramsReady, datagramScope, echoUDP),
	{
		name: "Go net/http", needs: []string{"bash"}, common: true,
		prepare: func(b *bench) { b.named("serve-http") },
		server:  []string{"$DIR/serve-http"}, ready: streamsReady,
		scope:   streamScope,
		traffic: func(b *bench) { b.requests(echoStreams); b.requestsMPTCP(echoStreams) },
	},
	{
		name: "Go UDP", needs: []string{"bash"}, common: true,
		prepare: func(b *bench) { b.named("echo-udp") },
		server:  []string{"$DIR/echo-udp"}, ready: datagramsReady,
		scope: datagramScope, traffic: echoUDP,
	},
	{
		name: "socat", needs: []string{"socat", "bash"},
		server: []string{"socat", "TCP-LISTEN:7100,fork,reuseaddr,bind=127.0.0.1", "EXEC:cat"}, ready: streamsReady,
		scope: streamScope, traffic: echo,
	},
	{
		name: "ncat", needs: []string{"ncat", "bash"},
		server: []string{"ncat", "-l", "-k", "--exec", "/bin/cat", "127.0.0.1", "7100"}, ready: streamsReady,
		scope: streamScope, traffic: echo,
	},
}

// python is a row of testdata/programs/echo.py.
func python(way string, ready []string, s scope, traffic func(*bench)) program {
	return program{
		name: "Python " + way, needs: []string{"python3", "bash"},
		prepare: func(b *bench) { b.script("echo.py") },
		server:  []string{"python3", "$DIR/echo.py", way}, ready: ready, scope: s, traffic: traffic,
	}
}

// node is a row of testdata/programs/serve.js.
func node(way string, ready []string, s scope, traffic func(*bench)) program {
	server := []string{"node", "$DIR/serve.js", way}
	if way == "io_uring" {
		server = append([]string{"env", "UV_USE_IO_URING=1"}, server...)
	}
	return program{
		name: "node " + way, needs: []string{"node", "bash"},
		prepare: func(b *bench) { b.script("serve.js") },
		server:  server, ready: ready, scope: s, traffic: traffic,
	}
}

// java is a row of testdata/programs/Echo.java.
func java(way string, ready []string, s scope, traffic func(*bench)) program {
	return program{
		name: "Java " + way, needs: []string{"java", "javac", "bash"},
		prepare: func(b *bench) { b.script("Echo.java") },
		server:  []string{"java", "-Xint", "$DIR/Echo.java", way}, ready: ready, scope: s, traffic: traffic,
	}
}

// script copies a file of testdata/programs into the directory.
func (b *bench) script(name string) {
	b.Helper()
	text, err := os.ReadFile(filepath.Join("testdata/programs", name))
	if err != nil {
		b.Fatal(err)
	}
	b.write(name, text)
}

// echo has several conversations with a stream server at the same time.
func echo(b *bench) {
	b.Helper()
	const connections, messages = 8, 4
	var conns []net.Conn
	for range connections {
		conns = append(conns, b.dial("tcp", echoStreams))
	}
	for n := range messages {
		for i, conn := range conns {
			message := bytes.Repeat(fmt.Appendf(nil, "message %d of connection %d.", n, i), 1+i*n*40)
			if _, err := conn.Write(message); err != nil {
				b.Fatal(err)
			}
			back := make([]byte, len(message))
			if _, err := io.ReadFull(conn, back); err != nil || !bytes.Equal(back, message) {
				b.Errorf("sent %.40q, got %.40q: %v", message, back, err)
			}
		}
	}
	for _, conn := range conns {
		b.halfClose(conn)
	}
}

// echoUDP sends datagrams of many sizes to a server.
func echoUDP(b *bench) {
	b.Helper()
	var conns []net.Conn
	for range 3 {
		conns = append(conns, b.dial("udp", echoDatagrams))
	}
	back := make([]byte, 1<<16)
	for n := range 20 {
		for i, conn := range conns {
			message := bytes.Repeat(fmt.Appendf(nil, "datagram %d of socket %d.", n, i), 1+n*i*3)
			if _, err := conn.Write(message); err != nil {
				b.Fatal(err)
			}
			if size, err := conn.Read(back); err != nil || !bytes.Equal(back[:size], message) {
				b.Errorf("sent %.40q, got %.40q: %v", message, back[:size], err)
			}
		}
	}
	for _, conn := range conns {
		conn.Close()
	}
	time.Sleep(20 * time.Millisecond)
}
