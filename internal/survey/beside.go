package survey

import (
	"bytes"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/experiment"
	"github.com/ebpfdump/ebpfdump/internal/skb"
)

// The tags of frames in experiments: priority 3, and no VLAN or one for which there is no device.
var tags = []uint16{3 << 13, 3<<13 | 5}

const (
	tagged  = 0x8100 // ETH_P_8021Q
	address = 12     // bytes before the tag
)

// vlan sends the probe's datagram once more, in a frame with a VLAN tag.
func (e *examination) vlan() error {
	if e.socket.Status != Filtered || len(e.main.wire) == 0 {
		return nil
	}
	f := &e.main.wire[0]
	if !slices.Contains(f.headers(), "IPv4") || !slices.Contains(f.headers(), "UDP") {
		return nil
	}
	for _, tag := range tags {
		found, err := e.tagged(f, tag)
		if err != nil || found == nil {
			return err
		}
		e.socket.VLAN = append(e.socket.VLAN, *found)
	}
	return nil
}

// tagged sends a frame with a tag; nil if this machine does not let it come in over lo.
func (e *examination) tagged(f *frame, tag uint16) (*Tagged, error) {
	names := []string{"vlan_present", "vlan_tci", "vlan_proto"}
	var fields []skb.Field
	for _, name := range names {
		fields = append(fields, skb.Named(name))
	}
	reader, err := experiment.OpenFields(fields)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	allowed := true
	o, err := e.try(trial{filter: reader, send: func(*capture.Session) error {
		// Otherwise a frame from this host's own address is dropped.
		for _, setting := range []string{"route_localnet", "accept_local"} {
			if os.WriteFile("/proc/sys/net/ipv4/conf/lo/"+setting, []byte("1"), 0) != nil {
				allowed = false
				return nil
			}
		}
		return inject(withTag(f, tag))
	}})
	if err != nil || !allowed || o.openErr != nil {
		return nil, err
	}
	values, err := reader.Values()
	if err != nil {
		return nil, err
	}
	found := &Tagged{Name: fmt.Sprintf("id %d", tag&0xfff), Filter: len(values)}
	for _, held := range values {
		if held[0] != 0 {
			found.Beside++
			proto := networkBytes(held[2])
			found.Tag = fmt.Sprintf("0x%x 0x%04x", proto[:2], held[1])
		}
	}
	got, _ := o.delivered(e.row.Kind)
	found.User = len(got)
	return found, nil
}

// withTag is a frame with a VLAN tag, and without UDP's checksum, which is not complete over lo.
func withTag(f *frame, tag uint16) []byte {
	data := bytes.Clone(f.data)
	udp := data[len(data)-len(f.from("UDP")):]
	udp[6], udp[7] = 0, 0
	return slices.Concat(data[:address], []byte{tagged >> 8, tagged & 0xff, byte(tag >> 8), byte(tag)}, data[address:])
}

// inject sends a frame over lo.
func inject(data []byte) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	const lo = 1
	return unix.Sendto(fd, data, 0, &unix.SockaddrLinklayer{Ifindex: lo})
}

const (
	mergedCount = 4
	mergedSize  = 100
)

// merged sends datagrams with one call, which the kernel keeps together as far as it can, to a socket that
// takes only single ones and to one that takes them together.
func (e *examination) merged() error {
	if e.socket.Status != Filtered || !e.sendsMessages() || e.row.Kind.Protocol() != unix.IPPROTO_UDP {
		return nil
	}
	m := &Merged{Sent: mergedCount, Size: mergedSize}
	for _, together := range []bool{false, true} {
		o, err := e.try(trial{
			prepare: func(fd int) error {
				if !together {
					return nil
				}
				return unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1)
			},
			send: func(s *capture.Session) error { return sendSegments(e.row.Kind, s) },
		})
		if err != nil {
			return err
		}
		if o.openErr != nil || o.probeErr != nil {
			return nil // this kernel has no such options
		}
		got, _ := o.delivered(e.row.Kind)
		for i := range o.records {
			if size := int(o.records[i].GsoSize); size > 0 {
				m.GSOSize = size
			}
		}
		if together {
			m.Together = Arrived{Filter: len(o.records), User: len(got)}
		} else {
			m.Single = Arrived{Filter: len(o.records), User: len(got)}
		}
	}
	e.socket.Merged = m
	return nil
}

// sendSegments sends several datagrams with one call.
func sendSegments(kind *capture.Kind, s *capture.Session) error {
	fd, err := unix.Socket(kind.Family(), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, mergedSize); err != nil {
		return fmt.Errorf("UDP_SEGMENT: %w", err)
	}
	var to unix.Sockaddr = &unix.SockaddrInet4{Port: int(s.Addr().Port()), Addr: [4]byte{127, 0, 0, 1}}
	if kind.IPv6() {
		to = &unix.SockaddrInet6{Port: int(s.Addr().Port()), Addr: s.Addr().Addr().As16()}
	}
	return unix.Sendto(fd, bytes.Repeat([]byte("x"), mergedCount*mergedSize), 0, to)
}

func (s *Socket) vlanText() string {
	var text string
	for _, t := range s.VLAN {
		if text != "" {
			text += "; "
		}
		text += fmt.Sprintf("%s: filter %d, %d with the tag beside, userspace %d", t.Name, t.Filter, t.Beside, t.User)
	}
	return text
}

func (s *Socket) mergedText() string {
	m := s.Merged
	if m == nil {
		return ""
	}
	return fmt.Sprintf("%d sent, filter %d and userspace %d; with UDP_GRO %d and %d", m.Sent, m.Single.Filter, m.Single.User, m.Together.Filter, m.Together.User)
}

func (r *Report) concludeBeside(say sayer) {
	with := func(holds func(*Tagged) bool) []string {
		return r.rows(func(s *Socket) bool {
			return slices.ContainsFunc(s.VLAN, func(t Tagged) bool { return holds(&t) })
		})
	}
	say(with(func(t *Tagged) bool { return t.Beside > 0 }), "The VLAN tag of a received frame is beside the bytes that the filter sees, and not among them.")
	say(with(func(t *Tagged) bool { return t.Name == "id 0" && t.Filter > 0 && t.Beside == 0 }), "Of a frame with a priority tag the filter sees no tag.")
	say(with(func(t *Tagged) bool { return t.Name != "id 0" && t.Filter == 0 }), "A frame of a VLAN for which there is no device does not come to the socket.")
	say(r.rows(func(s *Socket) bool {
		m := s.Merged
		return m != nil && m.Single.Filter == m.Sent && m.Together.Filter == 1 && m.GSOSize == m.Size
	}), "Datagrams that were sent together come one by one, unless the socket takes them together (UDP_GRO): then the filter sees one packet, whose gso_size says what they were.")
}
