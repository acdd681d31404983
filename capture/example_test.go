package capture_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert"
)

// A UDP server records what comes to its own socket, as the kernel shows it to a
// filter, into a pcapng file.
func ExampleAttach() {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	session, err := capture.Attach(conn, capture.Options{Views: []capture.View{capture.ViewKernel, capture.ViewNet}})
	if err != nil {
		log.Fatal(err) // such as a *bpf.MissingError, which says what would mend it
	}
	defer session.Close()

	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file, err := os.Create(filepath.Join(dir, "own.pcapng"))
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	writer, err := convert.NewWriter(file, convert.Section{Application: "a server"})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- session.Run(ctx, writer) }()

	// The server goes on as before.
	client, err := net.Dial("udp4", conn.LocalAddr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	fmt.Fprint(client, "hello")
	buffer := make([]byte, 100)
	n, _, err := conn.ReadFromUDP(buffer)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("the server read %q\n", buffer[:n])

	cancel()
	if err := <-done; err != nil {
		log.Fatal(err)
	}
	statistics, err := session.Statistics()
	if err != nil {
		log.Fatal(err)
	}
	for _, st := range statistics {
		if err := writer.WriteStatistics(st); err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %d received, %d dropped\n", st.Interface.Name(), st.Received, st.Dropped)
	}
	if err := writer.Flush(); err != nil {
		log.Fatal(err)
	}
	// As root it prints:
	// the server read "hello"
	// udp:kernel: 1 received, 0 dropped
	// udp:net: 1 received, 0 dropped
}

// printer is a Sink that prints what each observer got.
type printer struct{}

func (printer) WritePacket(p *capture.Packet) error {
	fmt.Printf("%s packet %d, %v to %v, %d bytes %s\n", p.Interface.Name(), p.ID, p.Src, p.Dst, p.Len, p.Comment)
	return nil
}

// A session opens a socket, probes it, and shows both sides of the one datagram.
func ExampleOpen() {
	kind, _ := capture.KindByName("udp")
	session, err := capture.Open(capture.Config{Kind: kind, Listen: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		if err := session.Probe(ctx); err != nil {
			log.Print(err)
		}
	}()
	if err := session.Run(ctx, printer{}); err != nil {
		log.Fatal(err)
	}
	// As root it prints, with ports that the kernel has chosen:
	// udp:kernel packet 1, 127.0.0.1:40000 to 127.0.0.1:50000, 19 bytes
	// udp:user packet 1, 127.0.0.1:40000 to 127.0.0.1:50000, 11 bytes
}

// Joining a process that runs: what its sockets get and what it reads of it, for ten
// seconds or until an interrupt.
func ExampleJoin() {
	live, err := capture.Join(capture.JoinConfig{
		PIDs:    []int{1234},
		Ports:   []uint16{80},
		Options: capture.Options{Notice: func(text string) { log.Print(text) }},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer live.Close()
	fmt.Println("following", live.Process())
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	if err := live.Run(ctx, printer{}); err != nil {
		log.Fatal(err)
	}
	for _, remark := range live.Remarks() {
		fmt.Println(remark)
	}
}

// An address that somebody else has is an error that says so, whatever program it is
// printed by.
func ExampleAddressError() {
	kind, _ := capture.KindByName("tcp")
	_, err := capture.Open(capture.Config{Kind: kind})
	var taken *capture.AddressError
	if errors.As(err, &taken) {
		fmt.Println(taken.What)
	}
}
