package survey

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/experiment"
	"github.com/ebpfdump/ebpfdump/internal/skb"
)

// examination runs all experiments with one kind of socket.
type examination struct {
	ctx      context.Context
	row      Row
	socket   *Socket
	readable []skb.Field
	main     *observation
}

var reference = []byte(capture.ProbePayload)

func (e *examination) all() (err error) {
	if e.main, err = e.try(trial{}); err != nil {
		return err
	}
	e.judge()
	if e.socket.Status == Refused || e.socket.Status == Absent || e.socket.Status == Unprobed {
		return nil
	}
	e.layers()
	e.exchange()
	e.userspace()
	for _, part := range []func() error{
		e.below, e.verdicts, e.held, e.inheritance, e.large, e.empty, e.fragments, e.vlan, e.merged,
	} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// try runs an experiment with the row's socket.
func (e *examination) try(t trial) (*observation, error) {
	if err := e.ctx.Err(); err != nil {
		return nil, context.Cause(e.ctx)
	}
	t.row = e.row
	if t.payload == nil {
		t.payload = reference
	}
	for end := time.Now().Add(addressWait); ; time.Sleep(addressWait / 100) {
		o, err := t.run(e.ctx)
		if err != nil || !errors.Is(o.openErr, unix.EADDRINUSE) || time.Now().After(end) {
			return o, err
		}
	}
}

// addressWait is how long to wait for an address that another experiment has, of a kind of socket that
// namespaces do not separate.
const addressWait = 20 * time.Second

// judge decides the status.
func (e *examination) judge() {
	s, delivered := e.socket, 0
	if e.main.openErr == nil {
		got, _ := e.main.delivered(e.row.Kind)
		delivered = len(got)
	}
	switch err := e.main.openErr; {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOPROTOOPT):
		s.Status, s.Reason = Refused, "SO_ATTACH_BPF: "+errno(err)
	case err != nil:
		s.Status, s.Reason = Absent, "socket: "+errno(err)
	case len(e.main.records) > 0:
		s.Status = Filtered
	case delivered > 0:
		s.Status = Unfiltered
	default:
		s.Status, s.Reason = Unprobed, probeOutcome(e.main.probeErr)
	}
}

// errno is the name of the kernel's error number, without the words around it.
func errno(err error) string {
	var number unix.Errno
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return "EOPNOTSUPP" // ErrnoName has its other name
	case errors.Is(err, unix.Errno(524)):
		return "ENOTSUPP" // the kernel's own, which is not in errno.h
	case errors.As(err, &number):
		return unix.ErrnoName(number)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "no answer"
	}
	return err.Error()
}

func probeOutcome(err error) string {
	if err == nil {
		return "ok"
	}
	return errno(err)
}

// layers finds the header at offset 0: where the bytes that the filter saw begin in the
// frames on the wire. If nothing was on the wire, they are a message.
func (e *examination) layers() {
	s := e.socket
	for i := range e.main.records {
		data := e.main.records[i].data
		name, headers := "unknown", []string(nil)
		if f, at := endsIn(e.main.wire, data); f != nil {
			headers = f.headers()
			if found, ok := f.startsAt(at); ok {
				name = found
			}
		} else if len(e.main.wire) == 0 {
			name, headers = parseMessage(data)
		}
		switch {
		case s.Offset0 == "":
			s.Offset0 = name
		case s.Offset0 != name:
			s.Offset0 = "mixed"
		}
		if len(headers) > len(s.Headers) {
			s.Headers = headers
		}
		if direction := direction(e.main.records[i].PktType); !slices.Contains(s.Directions, direction) {
			s.Directions = append(s.Directions, direction)
		}
	}
	slices.Sort(s.Directions)
	if len(e.main.records) == 0 {
		s.Headers = []string{payload}
	}
}

func direction(pktType uint32) string {
	if pktType == unix.PACKET_OUTGOING {
		return "out"
	}
	return "in"
}

const nlmsghdr = "nlmsghdr"

// parseMessage finds the headers of a message that was not on the wire.
func parseMessage(data []byte) (first string, headers []string) {
	if bytes.Equal(data, reference) {
		return payload, []string{payload}
	}
	// struct nlmsghdr of linux/netlink.h begins with the total length, in native byte
	// order.
	if len(data) >= unix.SizeofNlMsghdr && int(binary.NativeEndian.Uint32(data)) == len(data) {
		return nlmsghdr, []string{nlmsghdr, payload}
	}
	return "unknown", nil
}

// exchange finds which packets on the wire the filter saw.
func (e *examination) exchange() { e.socket.Exchange = exchanged(e.main.wire, e.main.saw) }

// exchanged lists the packets on the wire, with whether they were seen.
func exchanged(wire []frame, saw func(*frame) bool) (all []Exchanged) {
	handshake := 0 // 1 after the SYN-ACK, 2 after the ACK that follows it
	for i := range wire {
		f := &wire[i]
		label := f.label
		switch {
		case label == "SYN-ACK":
			handshake = max(handshake, 1)
		case label == "ACK" && f.to == toSocket && handshake == 1:
			label, handshake = "handshake ACK", 2
		}
		seen := "none"
		if saw(f) {
			seen = "all"
		}
		known := slices.IndexFunc(all, func(x Exchanged) bool { return x.Packet == label && x.To == f.to })
		switch {
		case known < 0:
			all = append(all, Exchanged{Packet: label, To: f.to, Filter: seen})
		case all[known].Filter != seen:
			all[known].Filter = "some"
		}
	}
	return all
}

// saw tells whether the filter saw a frame, or the tail of it.
func (o *observation) saw(f *frame) bool {
	return slices.ContainsFunc(o.records, func(r record) bool {
		return len(r.data) > 0 && bytes.HasSuffix(f.data, r.data)
	})
}

// userspace compares what recvmsg returned with what the filter saw.
func (e *examination) userspace() {
	got, _ := e.main.delivered(e.row.Kind)
	if len(got) == 0 {
		return
	}
	message := got[0]
	u := &Userspace{From: "unknown"}
	e.socket.Userspace = u
	for i := range e.main.records {
		seen := e.main.records[i].data
		at := bytes.Index(seen, message)
		if at < 0 {
			continue
		}
		u.MissingFront, u.MissingEnd = at, len(seen)-at-len(message)
		u.Same = len(seen) == len(message)
		break
	}
	if f, at := endsIn(e.main.wire, message); f != nil {
		if name, ok := f.startsAt(at); ok {
			u.From = name
		}
	} else if len(e.main.wire) == 0 {
		u.From, _ = parseMessage(message)
	}
	first, last := slices.Index(e.socket.Headers, e.socket.Offset0), slices.Index(e.socket.Headers, u.From)
	if first >= 0 && last > first {
		u.Missing = e.socket.Headers[first:last]
	}
}

// held reads every readable field of each packet.
func (e *examination) held() error {
	reader, err := experiment.OpenFields(e.readable)
	if err != nil {
		return err
	}
	defer reader.Close()
	if _, err := e.try(trial{filter: reader}); err != nil {
		return err
	}
	values, err := reader.Values()
	if err != nil || len(values) == 0 {
		return err
	}
	e.socket.Held = make(map[string]string)
	for i, f := range e.readable {
		if f.Name == accidental {
			continue
		}
		var held []uint64
		for _, packet := range values {
			held = append(held, packet[i])
		}
		e.socket.Held[f.Name] = describeValues(f.Name, held)
	}
	return nil
}
