package bpf_test

import (
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// A classic filter, as tcpdump -ddd prints it, is asked about packets that nobody has to
// send: does it keep UDP, and what of ICMP?
func ExampleRunner() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "udp.bpf")
	// ldb [9]; jeq #17; ret #64; ret #0: of an IPv4 packet of UDP, 64 bytes.
	if err := os.WriteFile(name, []byte("4\n48 0 0 9\n21 0 1 17\n6 0 0 64\n6 0 0 0\n"), 0o600); err != nil {
		log.Fatal(err)
	}
	verdict, err := bpf.ReadClassic(name)
	if err != nil {
		log.Fatal(err) // such as a *bpf.RefusedError, which says why the kernel will not have it
	}
	runner, err := bpf.OpenRunner(verdict)
	if err != nil {
		log.Fatal(err)
	}
	defer runner.Close()
	for _, protocol := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_ICMP} {
		packet := make([]byte, 60)
		copy(packet, []byte{0x45, 3: 60, 8: 64, 9: protocol, 12: 127, 15: 1, 16: 127, 19: 1})
		bytes, _, err := runner.Run(packet, bpf.Context{Protocol: unix.ETH_P_IP})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("IP protocol %d: %d bytes are kept\n", protocol, bytes)
	}
	// As root it prints:
	// IP protocol 17: 64 bytes are kept
	// IP protocol 1: 0 bytes are kept
}

// The tap on a socket: a record for each packet, from the UDP header on.
func ExampleTap() {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	tap, err := bpf.Open(bpf.Options{RingSize: bpf.MinRingSize})
	if err != nil {
		log.Fatal(err)
	}
	defer tap.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		log.Fatal(err)
	}
	if cerr := raw.Control(func(fd uintptr) { err = tap.Attach(int(fd)) }); cerr != nil || err != nil {
		log.Fatal(cerr, err)
	}
	if _, err := conn.WriteTo([]byte("to myself"), conn.LocalAddr()); err != nil {
		log.Fatal(err)
	}
	// What is in the ring is read at once, and not when there is much of it.
	if err := tap.Flush(); err != nil {
		log.Fatal(err)
	}
	var rec bpf.Record
	if err := tap.Read(&rec); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d bytes, payload %q, network header of %d bytes\n", rec.Len, rec.Data[8:], len(rec.NetHeader()))
	// As root it prints:
	// 17 bytes, payload "to myself", network header of 20 bytes
}
