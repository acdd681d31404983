package survey

import (
	"bytes"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/experiment"
)

// smallMTU is Ethernet's MTU, for experiments with packets that do not fit.
const smallMTU = 1500

// below finds what the filter reaches below offset 0, by comparison with the bytes on the
// wire.
func (e *examination) below() error {
	if e.socket.Status != Filtered {
		return nil
	}
	o, err := e.try(trial{payload: longPayload})
	if err != nil {
		return err
	}
	b := &Below{}
	e.socket.Below = b
	b.RelativeNet, b.RelativeLink = o.relative()
	if b.LegacyNet, err = e.legacy(experiment.OpenLegacyNet, networkHeader, o.records); err != nil {
		return err
	}
	b.LegacyLink, err = e.legacy(experiment.OpenLegacyLink, linkHeader, o.records)
	return err
}

// longPayload is longer than any header that is loaded, since a load beyond the end of
// the packet fails wherever it starts.
var longPayload = bytes.Repeat(reference, 10)

func linkHeader(f *frame) []byte { return f.data }

func networkHeader(f *frame) []byte {
	if b := f.from("IPv4"); b != nil {
		return b
	}
	return f.from("IPv6")
}

// relative evaluates what the tap reached with bpf_skb_load_bytes_relative in each
// packet.
func (o *observation) relative() (net, link string) {
	for i := range o.records {
		r := &o.records[i]
		net = worse(net, o.reached(r.NetHeader(), r.NetLen < 0, networkHeader, o.records))
		link = worse(link, o.reached(r.LinkHeader(), r.LinkLen < 0, linkHeader, o.records))
	}
	return net, link
}

// reached compares bytes with a header on the wire, and with what a filter sees from
// offset 0 on.
func (o *observation) reached(b []byte, refused bool, header func(*frame) []byte, seen []record) string {
	if refused {
		return ReachedNone
	}
	for i := range o.wire {
		if len(b) > 0 && bytes.HasPrefix(header(&o.wire[i]), b) {
			return ReachedBytes
		}
	}
	for i := range seen {
		if len(b) > 0 && bytes.HasPrefix(seen[i].data, b) {
			return ReachedSelf
		}
	}
	return ReachedOther
}

// worse is the worse of two outcomes, so that the result holds for all packets.
func worse(a, b string) string {
	if a == "" || a == ReachedBytes {
		return b
	}
	return a
}

// legacy tries absolute loads in a separate experiment.
func (e *examination) legacy(open func() (*experiment.LegacyLoad, error), header func(*frame) []byte, seen []record) (string, error) {
	load, err := open()
	if err != nil {
		return "", err
	}
	defer load.Close()
	o, err := e.try(trial{filter: load, payload: longPayload})
	if err != nil {
		return "", err
	}
	reach, err := load.Reach()
	if err != nil {
		return "", err
	}
	return o.reached(reach.Data, reach.Reached == 0 || reach.Reached < reach.Runs, header, seen), nil
}

// verdicts tries what happens to the probe when the filter drops or trims it.
func (e *examination) verdicts() error {
	if e.socket.Status != Filtered {
		return nil
	}
	for _, keep := range []int{0, 8, -1} {
		o := e.main
		if keep >= 0 {
			var err error
			if o, err = e.try(trial{verdict: bpf.Keep(int32(keep))}); err != nil {
				return err
			}
		}
		got, ended := o.delivered(e.row.Kind)
		outcome := Outcome{Keep: keep, Messages: len(got), Ended: ended, Probe: probeOutcome(o.probeErr)}
		for _, message := range got {
			outcome.Bytes += len(message)
		}
		e.socket.Verdicts = append(e.socket.Verdicts, outcome)
	}
	return nil
}

// inheritance tries whether accepted sockets have the filter of their listener.
func (e *examination) inheritance() error {
	if !e.row.Kind.Listens() || e.socket.Status != Filtered {
		return nil
	}
	o, err := e.try(trial{listenerOnly: true})
	if err != nil {
		return err
	}
	e.socket.Inherits = "no"
	for i := range o.records {
		if bytes.HasSuffix(o.records[i].data, reference) {
			e.socket.Inherits = "yes"
		}
	}
	return nil
}

// large sends much data over a stream on an interface with a small MTU.
func (e *examination) large() error {
	if !e.row.Kind.Stream() || e.socket.Status != Filtered {
		return nil
	}
	o, err := e.try(trial{mtu: smallMTU, payload: bytes.Repeat([]byte("x"), 40000)})
	if err != nil {
		return err
	}
	l := &Large{MTU: smallMTU}
	e.socket.Large = l
	for i := range o.records {
		r := &o.records[i]
		l.Longer = l.Longer || r.Len > smallMTU
		if size := int(r.GsoSize); size > 0 && !slices.Contains(l.GSOSizes, size) {
			l.GSOSizes = append(l.GSOSizes, size)
		}
	}
	slices.Sort(l.GSOSizes)
	got, _ := o.delivered(e.row.Kind)
	for _, b := range got {
		l.Bytes += len(b)
	}
	return nil
}

// sendsMessages tells whether the probe's payload is sent as a message.
func (e *examination) sendsMessages() bool {
	return !e.row.Kind.Stream() && e.row.protocol != unix.IPPROTO_TCP
}

// empty sends a message without payload.
func (e *examination) empty() error {
	if !e.sendsMessages() || e.socket.Status != Filtered {
		return nil
	}
	o, err := e.try(trial{payload: []byte{}})
	if err != nil {
		return err
	}
	got, ended := o.delivered(e.row.Kind)
	empty := &Empty{Filter: -1, Messages: len(got), Ended: ended}
	e.socket.Empty = empty
	if len(o.records) > 0 {
		empty.Filter = int(o.records[0].Len)
	}
	if len(got) > 0 {
		empty.Bytes = len(got[0])
	}
	return nil
}

// fragments sends a datagram that the IP layer has to fragment.
func (e *examination) fragments() error {
	if !e.sendsMessages() || e.socket.Status != Filtered || len(e.main.wire) == 0 {
		return nil
	}
	const size = 4000
	o, err := e.try(trial{mtu: smallMTU, payload: bytes.Repeat([]byte("x"), size)})
	if err != nil {
		return err
	}
	f := &Fragments{MTU: smallMTU, Payload: size, Wire: len(o.wire), Filter: len(o.records)}
	e.socket.Fragments = f
	for i := range o.records {
		f.Longest = max(f.Longest, int(o.records[i].Len))
	}
	got, _ := o.delivered(e.row.Kind)
	for _, message := range got {
		f.User = max(f.User, len(message))
	}
	return nil
}
