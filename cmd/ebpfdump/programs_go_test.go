package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
)

// goPrograms are the servers in Go. The test binary is these programs under these names.
var goPrograms = map[string]func(){
	"serve-http": serveHTTPMain,
	"echo-udp":   echoUDPMain,
}

// serveHTTPMain is a Go server with default settings: its listener speaks MPTCP.
func serveHTTPMain() {
	fmt.Fprintln(os.Stderr, http.ListenAndServe(echoStreams, http.HandlerFunc(answerLength)))
	os.Exit(1)
}

func echoUDPMain() {
	conn, err := net.ListenPacket("udp", echoDatagrams)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	echoPackets(conn)
}

// echoPackets sends back what it receives until it is ended.
func echoPackets(conn net.PacketConn) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		if _, err := conn.WriteTo(buf[:n], from); err != nil {
			return
		}
	}
}

// requestsMPTCP is requests with a client that speaks MPTCP. They fit into the window:
// otherwise the client repeats a byte, which is in the segments but not in the stream.
func (b *bench) requestsMPTCP(address string) {
	b.Helper()
	b.requestsBy(address, 400, func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		var dialer net.Dialer
		dialer.SetMultipathTCP(true)
		err = b.ns.Do(func() error {
			conn, err = dialer.DialContext(ctx, network, address)
			return err
		})
		return conn, err
	})
}
