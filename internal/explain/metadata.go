package explain

import (
	"fmt"
	"strings"

	"github.com/ebpfdump/ebpfdump/capture"
)

// Metadata is what the kernel keeps about packets besides their bytes, as a filter could
// load it from __sk_buff. Zero values are not counted.
type Metadata struct {
	// VLANs are the ids of the VLAN tags that the kernel removed from frames.
	VLANs *Values `json:"vlans,omitempty"`
	// Marks, Priorities and Queues are the values of these fields. Queues are values of
	// queue_mapping, which is the number of the receive queue plus one.
	Marks      *Values `json:"marks,omitempty"`
	Priorities *Values `json:"priorities,omitempty"`
	Queues     *Values `json:"queues,omitempty"`
	// Segmented are the packets that consist of several segments (segmentation offload),
	// of at most MostSegments.
	Segmented    Count  `json:"segmented"`
	MostSegments uint64 `json:"most_segments"`
	// NonLinear are the packets whose last bytes are in fragments, with the number of those.
	NonLinear Count `json:"nonlinear"`
	// ChecksumPartial are the packets of TCP and UDP without a checksum yet.
	ChecksumPartial Count `json:"checksum_partial"`
	// Hashed counts the packets with a flow hash.
	Hashed uint64 `json:"hashed"`
}

// Values counts packets by the value of a field.
type Values struct {
	// Values are the first sixteen.
	Values []Value `json:"values"`
	// Omitted counts the packets with other values.
	Omitted uint64 `json:"omitted"`
}

// Value counts the packets with one value.
type Value struct {
	Value   uint32 `json:"value"`
	Packets uint64 `json:"packets"`
	// IDs are the packet ids.
	IDs IDs `json:"ids"`
}

// shownValues limits the distinct values that are listed.
const shownValues = 16

func (v *Values) add(value uint32, p *capture.Packet) *Values {
	if v == nil {
		v = &Values{}
	}
	for i := range v.Values {
		if v.Values[i].Value == value {
			v.Values[i].Packets++
			v.Values[i].IDs.add(p.ID)
			return v
		}
	}
	if len(v.Values) == shownValues {
		v.Omitted++
		return v
	}
	v.Values = append(v.Values, Value{Value: value})
	return v.add(value, p)
}

// countMetadata counts a packet's metadata.
func (o *Socket) countMetadata(p *capture.Packet) {
	m := &p.Meta
	if *m == (capture.Meta{}) {
		return
	}
	if o.Metadata == nil {
		o.Metadata = &Metadata{}
	}
	b := o.Metadata
	if m.Tagged() {
		b.VLANs = b.VLANs.add(uint32(m.VLAN()), p)
	}
	if m.Mark != 0 {
		b.Marks = b.Marks.add(m.Mark, p)
	}
	if m.Priority != 0 {
		b.Priorities = b.Priorities.add(m.Priority, p)
	}
	if m.Queue != 0 {
		b.Queues = b.Queues.add(m.Queue, p)
	}
	if m.GSOSize != 0 {
		b.Segmented.add(p.ID, uint64(max(p.Len, len(p.Data))))
		b.MostSegments = max(b.MostSegments, uint64(m.GSOSegs))
	}
	if m.NonLinear != 0 {
		b.NonLinear.add(p.ID, uint64(m.NonLinear))
	}
	if m.ChecksumPartial {
		b.ChecksumPartial.add(p.ID, uint64(max(p.Len, len(p.Data))))
	}
	if m.Hash != 0 {
		b.Hashed++
	}
}

// sayMetadata leaves out hash and queue alone, which nearly every packet has.
func (o *Socket) sayMetadata() Finding {
	f := Finding{Topic: "beside"}
	b := o.Metadata
	if b == nil {
		return f
	}
	words := b.VLANs.words("the tag of VLAN %d")
	words = append(words, b.Marks.words("mark %#x")...)
	words = append(words, b.Priorities.words("priority %d")...)
	if len(words) > 0 {
		f.Text = "The kernel keeps beside the bytes " + list(words) + "."
	}
	if b.VLANs != nil {
		f.Text += " The filter finds a tag in vlan_tci, and not at its place in the frame."
	}
	if n := b.Segmented.Packets; n > 0 {
		f.Text += fmt.Sprintf(" Segmentation offload: %s for up to %s segments each.", plural(n, "1 packet stands", digits(n)+" packets stand"), digits(b.MostSegments))
	}
	if n := b.ChecksumPartial.Packets; n > 0 {
		f.Text += fmt.Sprintf(" The checksum of %s is not there yet: a device would complete it, and loopback does not.", plural(n, "1 packet", digits(n)+" packets"))
	}
	if n := b.NonLinear.Packets; n > 0 {
		f.Text += fmt.Sprintf(" Of %s the last bytes are in fragments, where a program with direct access (data to data_end) does not reach them without bpf_skb_pull_data.",
			plural(n, "1 packet", digits(n)+" packets"))
	}
	f.Text = strings.TrimPrefix(f.Text, " ")
	return f
}

// words lists each value with its packets.
func (v *Values) words(format string) (words []string) {
	if v == nil {
		return nil
	}
	for _, each := range v.Values {
		of := Count{Packets: each.Packets, IDs: each.IDs}
		words = append(words, fmt.Sprintf(format+" (%s)", each.Value, of.named()))
	}
	if v.Omitted > 0 {
		words = append(words, "others ("+packetsOf(v.Omitted)+")")
	}
	return words
}

// metadataText describes the metadata of one packet.
func metadataText(m *capture.Meta) string {
	var words []string
	say := func(isThere bool, format string, values ...any) {
		if isThere {
			words = append(words, fmt.Sprintf(format, values...))
		}
	}
	say(m.Tagged(), "VLAN %d (tag %04x %04x)", m.VLAN(), m.VLANProto, m.VLANTCI)
	say(m.Mark != 0, "mark %#x", m.Mark)
	say(m.Priority != 0, "priority %d", m.Priority)
	say(m.GSOSize != 0, "%d segments of %d bytes", m.GSOSegs, m.GSOSize)
	say(m.NonLinear != 0, "the last %d bytes not linear", m.NonLinear)
	say(m.Hash != 0, "hash %#x", m.Hash)
	say(m.Queue != 0, "queue_mapping %d", m.Queue)
	if len(words) == 0 {
		return ""
	}
	return "beside the bytes: " + strings.Join(words, ", ")
}
