package capture

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// ProbePort is the port of the probe, 0x4242.
	ProbePort = 16962
	// ProbePayload is what the probe sends.
	ProbePayload = "0123456789\n"
)

const (
	// probeTimeout bounds a single call of the probe, should the network eat its packets.
	probeTimeout = 3 * time.Second
	// quietTime is how long the socket must have been quiet before the probe counts as over.
	quietTime = 100 * time.Millisecond
	// settleTime bounds the wait for quiet, on sockets that get other traffic as well.
	settleTime = 2 * time.Second
)

// probe sends the reference traffic of a kind.
type probe func(kind *Kind, config *Config, to netip.AddrPort) error

// Probe sends the reference traffic to the session's socket, while Run is
// running, and returns when the socket has seen it and is quiet.
func (s *Session) Probe(ctx context.Context) error {
	to := netip.AddrPortFrom(s.main.local.Addr(), s.config.Listen.Port())
	if s.config.Kind.typ != unix.SOCK_RAW {
		to = s.main.local
	}
	if to.Addr().IsUnspecified() {
		to = netip.AddrPortFrom(s.config.Kind.Loopback().Addr(), to.Port())
	}
	if to.Port() == 0 {
		to = netip.AddrPortFrom(to.Addr(), ProbePort)
	}
	err := s.config.Namespace.Do(func() error { return s.config.Kind.probe(s.config.Kind, &s.config, to) })
	if s.stopping.Load() {
		return nil // the capture has got enough, and has cut the probe short
	}
	if err != nil {
		return s.excuse(ctx, fmt.Errorf("sending the probe to %s: %w", to, err))
	}
	return s.settle(ctx)
}

// settle waits until nothing has come for a while.
func (s *Session) settle(ctx context.Context) error {
	var last Counts
	changed, end := time.Now(), time.Now().Add(settleTime)
	for time.Since(changed) < quietTime && time.Now().Before(end) {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(quietTime / 10):
		}
		counts, err := s.Counts()
		if err != nil {
			return err
		}
		if counts != last {
			last, changed = counts, time.Now()
		}
	}
	if last.Tap.Seen == 0 {
		return errors.New("the probe was sent, but the socket's filter has not seen it: a firewall may have dropped it (try --isolate)")
	}
	return nil
}

// dial connects to an address; what then takes longer than it should fails.
// network is "tcp", "udp" or "ip:PROTOCOL".
func dial(kind *Kind, network string, to netip.AddrPort) (net.Conn, error) {
	version := "4"
	if kind.IPv6() {
		version = "6"
	}
	base, protocol, isRaw := strings.Cut(network, ":")
	network, address := base+version, to.String()
	if isRaw {
		network, address = network+":"+protocol, to.Addr().String()
	}
	conn, err := (&net.Dialer{Timeout: probeTimeout}).Dial(network, address)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(probeTimeout)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// probeStream sends the payload over a connection and closes it in good order.
func probeStream(kind *Kind, config *Config, to netip.AddrPort) error {
	conn, err := dial(kind, "tcp", to)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, ProbePayload); err != nil {
		return err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	// Reading to the end leaves the peer to close: what it gets is a FIN, not a RST.
	echo, err := io.ReadAll(conn)
	if err != nil {
		return err
	}
	return checkEcho(config, echo)
}

// probeDatagram sends the payload in one datagram.
func probeDatagram(kind *Kind, config *Config, to netip.AddrPort) error {
	conn, err := dial(kind, "udp", to)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, ProbePayload); err != nil {
		return err
	}
	if !config.Echo {
		return nil
	}
	echo := make([]byte, 2*len(ProbePayload))
	n, err := conn.Read(echo)
	if err != nil {
		return fmt.Errorf("waiting for the echo: %w", err)
	}
	return checkEcho(config, echo[:n])
}

func checkEcho(config *Config, got []byte) error {
	if config.Echo && string(got) != ProbePayload {
		return fmt.Errorf("the echo is %q", got)
	}
	return nil
}

// probeRaw sends what a raw socket of the configured protocol gets to see. For
// TCP that is an attempt to connect to the port, where nobody is expected to listen.
func probeRaw(kind *Kind, config *Config, to netip.AddrPort) error {
	network, message := fmt.Sprintf("ip:%d", config.Protocol), []byte(ProbePayload)
	switch config.Protocol {
	case unix.IPPROTO_TCP:
		network, message = "tcp", nil
	case unix.IPPROTO_UDP:
		network = "udp"
	case unix.IPPROTO_ICMP:
		message = echoRequest(8)
	case unix.IPPROTO_ICMPV6:
		message = echoRequest(128)
	}
	conn, err := dial(kind, network, to)
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	if message != nil {
		_, err = conn.Write(message)
	}
	return err
}

// echoRequest is an ICMP echo request (RFC 792, RFC 4443) with the probe's
// payload, of a type that depends on the IP version. Linux computes the
// checksum of ICMPv6 itself.
func echoRequest(typ byte) []byte {
	m := append([]byte{typ, 0, 0, 0, 0x42, 0x42, 0, 1}, ProbePayload...)
	var sum uint32
	for i := 0; i < len(m); i += 2 {
		var word [2]byte
		copy(word[:], m[i:])
		sum += uint32(binary.BigEndian.Uint16(word[:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(m[2:], ^uint16(sum))
	return m
}
