package capture

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

const (
	// ProbePort is the port of the probe, 0x4242.
	ProbePort = 16962
	// ProbePayload is what the probe sends.
	ProbePayload = "0123456789\n"
)

const (
	// probeTimeout bounds a single call of the probe, in case the network drops its packets.
	probeTimeout = 3 * time.Second
	// quietTime is how long nothing must have arrived for the probe to count as finished.
	quietTime = 100 * time.Millisecond
	// settleTime bounds the wait for quiet, on sockets that get other traffic as well.
	settleTime = 2 * time.Second
)

// probe sends the reference traffic of a kind.
type probe func(p *probing) error

// probing is what a probe works on.
type probing struct {
	session *Session
	kind    *Kind
	config  *Config
	to      unix.Sockaddr
	addr    netip.AddrPort // the same, for kinds of IP
	payload []byte
}

// ErrProbeUnseen is the error of a probe that did not arrive. In a Namespace of its own nothing
// is between the probe and the socket.
var ErrProbeUnseen = errors.New("the probe was sent, but the socket's filter has not seen it: a firewall may have dropped it")

// Probe sends the reference traffic to the session's socket, while Run is running, and returns
// when the socket has seen it and is quiet.
//
// It is for sockets that Open has opened.
func (s *Session) Probe(ctx context.Context) error {
	if err := s.ProbeWith(ctx, []byte(ProbePayload)); err != nil {
		return s.excuse(ctx, err)
	}
	counts, err := s.Counts()
	if err != nil {
		return err
	}
	switch {
	case counts.Tap.Seen > 0:
	case counts.Delivered > 0 && s.config.Kind.Note == "":
		s.config.Notice("the probe reached userspace, and the socket's filter has not run for it")
	case counts.Delivered == 0:
		return ErrProbeUnseen
	}
	return nil
}

// ProbeWith is Probe with the caller's payload. It is not an error if the filter has not seen
// it.
func (s *Session) ProbeWith(ctx context.Context, payload []byte) error {
	if s.borrowed {
		return errBorrowed
	}
	p := s.newProbing(payload)
	where := p.kind.Name
	if p.addr.IsValid() {
		where = p.addr.String()
	}
	before, err := s.news()
	if err != nil {
		return err
	}
	err = s.config.Namespace.Do(func() error { return p.kind.probe(p) })
	if s.stopping.Load() {
		return nil // the capture reached its limit, which ended the probe early
	}
	if err != nil {
		return fmt.Errorf("sending the probe to %s: %w", where, err)
	}
	return s.settle(ctx, before)
}

func (s *Session) newProbing(payload []byte) *probing {
	p := &probing{session: s, kind: s.config.Kind, config: &s.config, payload: payload}
	switch place := p.kind.place; {
	case place.target != nil:
		p.to = place.target(s.main.name)
	case place.sockaddr != nil:
		p.to = s.main.name
	default:
		p.addr = s.probeAddr()
		p.to = sockaddr(p.addr)
	}
	return p
}

// MayProbe checks, before anything is recorded, whether the kernel permits the probe. An error
// is a *bpf.MissingError if it does not.
func (s *Session) MayProbe() error {
	if s.borrowed {
		return errBorrowed
	}
	may := s.config.Kind.mayProbe
	if may == nil {
		return nil
	}
	return s.config.Namespace.Do(func() error { return may(s.newProbing(nil)) })
}

// probeAddr is the address to which the probe of an IP kind is sent.
func (s *Session) probeAddr() netip.AddrPort {
	to := s.main.local
	if s.config.Kind.anyProtocol {
		to = netip.AddrPortFrom(to.Addr(), s.config.Listen.Port())
	}
	if to.Addr().IsUnspecified() {
		to = netip.AddrPortFrom(s.config.Kind.Loopback().Addr(), to.Port())
	}
	if to.Port() == 0 {
		to = netip.AddrPortFrom(to.Addr(), ProbePort)
	}
	return to
}

// settle waits until the counts differ from those before, and then until they have not changed
// for quietTime.
func (s *Session) settle(ctx context.Context, before Counts) error {
	last := before
	changed, end := time.Now(), time.Now().Add(settleTime)
	for (last == before || time.Since(changed) < quietTime) && time.Now().Before(end) {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(quietTime / 10):
		}
		counts, err := s.news()
		if err != nil {
			return err
		}
		if counts != last {
			last, changed = counts, time.Now()
		}
	}
	return nil
}

// news returns the counts that change when something arrives, without Written, which changes
// later.
func (s *Session) news() (Counts, error) {
	counts, err := s.Counts()
	counts.Written = 0
	return counts, err
}

// awaitAccepted waits until the accepted connection has its filter.
func (p *probing) awaitAccepted() error {
	for end := time.Now().Add(probeTimeout); p.session.accepted.Load() == 0; {
		if time.Now().After(end) {
			return fmt.Errorf("waiting to be accepted: %w", os.ErrDeadlineExceeded)
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// probeConnection sends the payload over a connection and closes it gracefully.
func probeConnection(p *probing) error {
	conn, err := connectPeer(p.kind.domain, p.kind.typ, p.kind.protocol, p.to)
	if err != nil {
		return err
	}
	defer conn.Close()
	if p.kind.adopts {
		if err := p.awaitAccepted(); err != nil {
			return err
		}
	}
	if _, err := conn.Write(p.payload); err != nil {
		return err
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	// Reading to the end lets the other side close first, so that it gets a FIN, not a RST.
	echo, err := io.ReadAll(conn)
	if err != nil {
		return err
	}
	return p.checkEcho(echo)
}

// probeDatagram sends the payload in one datagram.
func probeDatagram(p *probing) error {
	conn, err := connectPeer(p.kind.domain, p.kind.typ, p.kind.protocol, p.to)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write(p.payload); err != nil {
		return err
	}
	if !p.config.Echo {
		return nil
	}
	echo := make([]byte, 2*len(p.payload))
	n, err := conn.Read(echo)
	if err != nil {
		return fmt.Errorf("waiting for the echo: %w", err)
	}
	return p.checkEcho(echo[:n])
}

func (p *probing) checkEcho(got []byte) error {
	if p.config.Echo && string(got) != string(p.payload) {
		return fmt.Errorf("the echo is %q", got)
	}
	return nil
}

// probeRaw sends what a raw socket of the configured protocol receives. For TCP that is an
// attempt to connect to the port, on which nothing should listen.
func probeRaw(p *probing) error {
	typ, message := unix.SOCK_RAW, p.payload
	switch p.config.Protocol {
	case unix.IPPROTO_TCP:
		typ, message = unix.SOCK_STREAM, nil
	case unix.IPPROTO_UDP:
		typ = unix.SOCK_DGRAM
	case unix.IPPROTO_ICMP:
		message = echoRequest(8, p.payload)
	case unix.IPPROTO_ICMPV6:
		message = echoRequest(128, p.payload)
	}
	to := p.to
	if typ == unix.SOCK_RAW {
		// For IPv6 the kernel takes the port as the protocol, which must match.
		to = sockaddr(netip.AddrPortFrom(p.addr.Addr(), 0))
	}
	conn, err := connectPeer(p.kind.domain, typ, p.config.Protocol, to)
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	if p.config.Protocol != unix.IPPROTO_TCP {
		_, err = conn.Write(message)
	}
	return err
}

// probePing makes the ping socket itself send an echo request, because it only receives
// replies.
func probePing(p *probing) error {
	typ := byte(8)
	if p.kind.IPv6() {
		typ = 128
	}
	return p.session.main.send(echoRequest(typ, p.payload), p.addr, p.session.sent)
}

// probeWire sends a UDP datagram over lo, to a socket that is bound there.
func probeWire(p *probing) error {
	if p.config.Address != "lo" {
		return fmt.Errorf("the probe goes over lo, and the socket is on %s", p.config.Address)
	}
	to := &unix.SockaddrInet4{Port: ProbePort, Addr: [4]byte{127, 0, 0, 1}}
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(listener)
	bound := unix.Bind(listener, to)
	if bound != nil && !errors.Is(bound, unix.EADDRINUSE) {
		return fmt.Errorf("bind: %w", bound)
	}
	conn, err := connectPeer(unix.AF_INET, unix.SOCK_DGRAM, 0, to)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err = conn.Write(p.payload); err != nil || bound != nil {
		return err
	}
	return awaitDatagram(listener)
}

// awaitDatagram waits until a datagram has come: on a busy machine that may be later than the call that
// sent it, and to a socket that is closed by then it would be one that nobody listens for.
func awaitDatagram(fd int) error {
	limit := unix.NsecToTimeval(probeTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return fmt.Errorf("setting SO_RCVTIMEO: %w", err)
	}
	for {
		_, _, err := unix.Recvfrom(fd, nil, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN): // a firewall has dropped it
			return nil
		default:
			return err
		}
	}
}

// connectNetlink connects to the session's own socket, which sends nothing.
func connectNetlink(p *probing) (peer, error) {
	conn, err := connectPeer(p.kind.domain, p.kind.typ, p.kind.protocol, p.to)
	if errors.Is(err, unix.EPERM) {
		return conn, bpf.LacksCapability(unix.CAP_NET_ADMIN, "sending the probe to a netlink socket", err)
	}
	return conn, err
}

func mayProbeNetlink(p *probing) error {
	conn, err := connectNetlink(p)
	if err != nil {
		return err
	}
	return conn.Close()
}

// probeNetlink sends the payload as a message that is not a request.
func probeNetlink(p *probing) error {
	conn, err := connectNetlink(p)
	if err != nil {
		return err
	}
	defer conn.Close()
	header := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(p.payload))
	binary.NativeEndian.PutUint32(header, uint32(len(header)+len(p.payload)))
	binary.NativeEndian.PutUint16(header[4:], unix.NLMSG_NOOP)
	_, err = conn.Write(append(header, p.payload...))
	return err
}

// echoRequest is an ICMP echo request (RFC 792, RFC 4443) with a payload; its type depends on
// the IP version. Linux computes the checksum of ICMPv6 itself.
func echoRequest(typ byte, payload []byte) []byte {
	m := append([]byte{typ, 0, 0, 0, 0x42, 0x42, 0, 1}, payload...)
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
