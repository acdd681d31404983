package convert

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/remark"
)

// hashToeplitz is the algorithm number of epb_hash for flow hashes as network cards
// compute them. Linux computes some itself with another algorithm, but pcapng has no
// other number for a hash that is not computed over the packet's bytes.
const hashToeplitz = 5

// isFlowHash tells whether the value of epb_hash is one that capture.Meta has room for.
func isFlowHash(value []byte) bool { return len(value) == 5 && value[0] == hashToeplitz }

// The bits of epb_flags that stand for what the kernel knows of a packet. Wireshark shows the
// last two from 4.2 on, and calls them reserved before.
const (
	flagInbound         = 1
	flagOutbound        = 2
	flagDirection       = 3
	flagChecksumPartial = 1 << 9
	flagTCPSegments     = 1 << 11
)

// flagsOf is the value of epb_flags.
func flagsOf(p *capture.Packet) (flags uint32) {
	switch p.Direction {
	case capture.Inbound:
		flags = flagInbound
	case capture.Outbound:
		flags = flagOutbound
	}
	if p.Meta.ChecksumPartial {
		flags |= flagChecksumPartial
	}
	if p.Meta.GSOSize != 0 && p.Protocol == unix.IPPROTO_TCP {
		flags |= flagTCPSegments
	}
	return flags
}

// parseFlags reads epb_flags. What a packet's segments are stands in its comment, if that is
// known.
func parseFlags(p *capture.Packet, flags uint32) {
	switch flags & flagDirection {
	case flagInbound:
		p.Direction = capture.Inbound
	case flagOutbound:
		p.Direction = capture.Outbound
	}
	p.Meta.ChecksumPartial = flags&flagChecksumPartial != 0
}

// How many bytes are not linear is in a custom option, as a Reception is: enterprise number,
// nonLinearMark, bytes. A comment would be there for nearly every segment on loopback.
const (
	nonLinearMark = "nlb\x00"
	nonLinearSize = 12
)

func appendNonLinear(b []byte, n uint32) []byte {
	b = order.AppendUint32(appendOptionHead(b, customBytes, nonLinearSize), enterprise)
	return binary.BigEndian.AppendUint32(append(b, nonLinearMark...), n)
}

// isNonLinear tells whether a custom option is one of appendNonLinear.
func isNonLinear(value []byte, from binary.ByteOrder) bool {
	return len(value) == nonLinearSize && from.Uint32(value) == enterprise && string(value[4:8]) == nonLinearMark
}

// appendMetaOptions appends the metadata that has options: hash, queue, and how much is not linear.
// epb_queue counts from 0, and queue_mapping of received packets from 1.
func appendMetaOptions(b []byte, p *capture.Packet) []byte {
	m := &p.Meta
	if m.Hash != 0 {
		b = appendOptionHead(b, packetHash, 5)
		b = append(binary.BigEndian.AppendUint32(append(b, hashToeplitz), m.Hash), 0, 0, 0)
	}
	if m.Queue != 0 {
		b = appendOptionUint32(b, packetQueue, m.Queue-queueBase(p))
	}
	if m.NonLinear != 0 {
		b = appendNonLinear(b, m.NonLinear)
	}
	return b
}

// queueBase is the value of queue_mapping that stands for queue 0.
func queueBase(p *capture.Packet) uint32 {
	if p.Direction == capture.Outbound {
		return 0
	}
	return 1
}

// hasComment tells whether a packet has a comment, or facts that a comment has to
// express.
func hasComment(p *capture.Packet) bool {
	return p.Comment != "" || remark.HasFacts(p) || remark.HasMeta(&p.Meta)
}

// commentSize is an upper bound on what appendComment appends before it truncates.
func commentSize(p *capture.Packet) int {
	// Whether there are facts is asked once per packet, not here.
	return min(len(p.Comment), maxOption) + remark.MetaSize + remark.FactsSize + len(p.Call)
}

// appendComment appends a packet's comment with the sentences about its facts and its
// Meta.
func appendComment(b []byte, p *capture.Packet) []byte {
	limit := maxOption
	if remark.HasMeta(&p.Meta) {
		limit -= remark.MetaSize
	}
	if len(p.Comment) > maxOption {
		shorter := *p
		shorter.Comment = cut(p.Comment, maxOption)
		p = &shorter
	}
	start := len(b)
	b = appendOptionHead(b, optionComment, 0)
	text := len(b)
	b = remark.AppendFacts(b, p)
	b = b[:text+len(cut(b[text:], limit))]
	b = remark.AppendMetaBehind(b, len(b)-text, &p.Meta)
	size := len(b) - text
	order.PutUint16(b[start+2:], uint16(size))
	return pad(b, size)
}

// parseMeta completes the Meta of a packet whose options were read.
func parseMeta(p *capture.Packet, i *fileInterface) {
	if p.Meta.Queue != 0 {
		p.Meta.Queue += queueBase(p) - 1
	}
	if i.own.HasMeta {
		if rest, m, ok := remark.CutMeta(p.Comment); ok {
			m.Hash, m.Queue = p.Meta.Hash, p.Meta.Queue
			m.NonLinear, m.ChecksumPartial = p.Meta.NonLinear, p.Meta.ChecksumPartial
			p.Comment, p.Meta = rest, m
		}
	}
}

// A VLAN tag is inserted between the addresses and the type of an Ethernet header.
const (
	tagPlace = 12
	tagSize  = 4
)

// restoresTag tells whether the VLAN tag in a packet's Meta is put back into its bytes.
func restoresTag(p *capture.Packet) bool {
	return p.Meta.Tagged() && p.Interface.HasMeta && p.Interface.Layer == capture.LayerLink && len(p.Data) >= tagPlace
}

func appendTag(b []byte, m *capture.Meta) []byte {
	return binary.BigEndian.AppendUint32(b, uint32(m.VLANProto)<<16|uint32(m.VLANTCI))
}

// stripTag removes the tag that the Writer put back into a frame. A frame without that
// tag was not written by the Writer, so its comment is not taken for facts.
func stripTag(p *capture.Packet) {
	if !restoresTag(p) {
		return
	}
	if len(p.Data) < tagPlace+tagSize || binary.BigEndian.Uint32(p.Data[tagPlace:]) != uint32(p.Meta.VLANProto)<<16|uint32(p.Meta.VLANTCI) {
		p.Comment = string(remark.AppendComment(nil, p.Comment, &p.Meta))
		m := &p.Meta
		p.Meta = capture.Meta{Hash: m.Hash, Queue: m.Queue, NonLinear: m.NonLinear, ChecksumPartial: m.ChecksumPartial}
		return
	}
	// Moving the addresses is cheaper than moving the rest. The window of a file being
	// read holds one packet at a time.
	copy(p.Data[tagSize:], p.Data[:tagPlace])
	p.Data = p.Data[tagSize:]
	p.Len -= tagSize
}
