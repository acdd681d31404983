package bpf

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Runner runs a verdict on packets that no socket receives. The filter's maps keep their
// contents from packet to packet.
//
// A filter sees a packet's bytes and length, and what is in a Context. Everything else in
// __sk_buff is zero or that of the loopback interface (no socket, no packet type), and there
// are no headers below offset 0: loads relative to the network header begin at offset 0, too.
// What a filter reads and does not get is listed: by Never for all packets, by Run for one.
//
// Needs CAP_BPF.
type Runner struct {
	verdict    *Verdict
	collection *ebpf.Collection
	program    *ebpf.Program
	question   question
	frame      []byte
	socket     *socketRunner // for packets that BPF_PROG_RUN does not take; nil before the first
}

// OpenRunner loads a verdict into the kernel. Its errors are those of Open.
func OpenRunner(v *Verdict) (*Runner, error) {
	_ = rlimit.RemoveMemlock()
	spec := v.spec.Copy()
	asked := prepare(spec)
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, v.explain("refuses it", err)
	}
	return &Runner{verdict: v, collection: collection, program: collection.Programs[v.program], question: asked}, nil
}

// Never lists what the filter reads and a Runner has for no packet: fields of __sk_buff, and
// helpers.
func (r *Runner) Never() []string { return r.question.never() }

// frameHeader is the size of the link header that the kernel removes before it runs a socket
// filter (eth_type_trans).
const frameHeader = 14

// Run returns what the filter decides on a packet, from its offset 0 on: the
// number of bytes to keep, negative for all, 0 to drop it. missing lists the fields of the
// Context that the filter reads and that could not be set, or are not known.
//
// BPF_PROG_RUN refuses IP packets that are shorter than an IP header, as packets from the
// transport header on may be: these are run without their protocol. Before Linux 6.19 it
// refuses packets of more than some 3,700 bytes: these are sent through a unix socket, where
// the filter gets nothing but their bytes.
func (r *Runner) Run(packet []byte, c Context) (verdict int32, missing []string, err error) {
	d := delivery{protocol: c.Protocol >= unix.ETH_P_802_3_MIN || c.Protocol == unix.ETH_P_802_2 || c.Protocol == unix.ETH_P_802_3}
	if c.Protocol == unix.ETH_P_802_2 || c.Protocol == unix.ETH_P_802_3 {
		// The kernel finds that out itself, and looks at the first bytes that it has.
		broadcast := len(packet) >= 2 && packet[0] == 0xff && packet[1] == 0xff
		d.protocol = broadcast == (c.Protocol == unix.ETH_P_802_3)
	}
	verdict, err = r.run(packet, c)
	if errors.Is(err, unix.EINVAL) && c.Protocol != 0 && len(packet) < 40 {
		d.protocol = false
		without := c
		without.Protocol = 0
		verdict, err = r.run(packet, without)
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOMEM) {
		d = delivery{bare: true}
		verdict, err = r.runOnSocket(packet)
	} else if err != nil {
		err = fmt.Errorf("running %s on %d bytes: %w", r.verdict.name, len(packet), err)
	}
	if err != nil {
		return 0, nil, err
	}
	return verdict, r.question.missing(&c, d), nil
}

func (r *Runner) run(packet []byte, c Context) (int32, error) {
	r.frame = slices.Grow(r.frame[:0], frameHeader+len(packet))[:frameHeader]
	r.frame[12], r.frame[13] = byte(c.Protocol>>8), byte(c.Protocol)
	r.frame = append(r.frame, packet...)
	options := ebpf.RunOptions{Data: r.frame}
	if skb := c.encode(r.question.detours); skb != nil {
		options.Context = skb
	}
	verdict, err := r.program.Run(&options)
	return int32(verdict), err
}

func (r *Runner) runOnSocket(packet []byte) (verdict int32, err error) {
	if r.socket == nil {
		if r.socket, err = openSocketRunner(r.verdict, r.collection); err != nil {
			return 0, err
		}
	}
	if verdict, err = r.socket.run(packet); err != nil {
		return 0, fmt.Errorf("running %s on %d bytes: %w", r.verdict.name, len(packet), err)
	}
	return verdict, nil
}

// Close releases the filter and its maps.
func (r *Runner) Close() error {
	r.collection.Close()
	if r.socket != nil {
		return r.socket.close()
	}
	return nil
}

// socketRunner runs the same filter, with the same maps, in a tap on a unix datagram socket,
// where offset 0 is the first byte that was sent.
type socketRunner struct {
	tap              *Tap
	record           Record
	sender, receiver int
}

func openSocketRunner(v *Verdict, loaded *ebpf.Collection) (_ *socketRunner, err error) {
	s := &socketRunner{}
	options := Options{RingSize: MinRingSize, Snaplen: 1, WakeupBytes: MinRingSize, Verdict: v}
	if s.tap, err = openWith(options, loaded.Maps); err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening a unix socket: %w", err), s.tap.Close())
	}
	s.sender, s.receiver = pair[0], pair[1]
	// The kernel doubles the value to allow for its overhead: that is enough for the longest
	// packet, and within the default net.core.wmem_max.
	if err := unix.SetsockoptInt(s.sender, unix.SOL_SOCKET, unix.SO_SNDBUF, MaxSnaplen); err != nil {
		return nil, errors.Join(fmt.Errorf("setting SO_SNDBUF: %w", err), s.close())
	}
	if err := s.tap.Attach(s.receiver); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *socketRunner) run(packet []byte) (int32, error) {
	if err := unix.Send(s.sender, packet, 0); err != nil {
		return 0, err
	}
	// There is nothing to receive if the filter dropped it.
	_, _, _ = unix.Recvfrom(s.receiver, nil, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
	if err := s.tap.Flush(); err != nil {
		return 0, err
	}
	if err := s.tap.Read(&s.record); err != nil {
		return 0, err
	}
	verdict := s.record.Verdict
	if err := s.tap.Read(&s.record); !errors.Is(err, ErrFlushed) {
		return 0, fmt.Errorf("a second packet came: %w", err)
	}
	return verdict, nil
}

func (s *socketRunner) close() error {
	return errors.Join(s.tap.Close(), unix.Close(s.sender), unix.Close(s.receiver))
}
