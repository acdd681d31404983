package bpf

import (
	"encoding/binary"
	"maps"
	"math/bits"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/ebpfdump/ebpfdump/internal/skb"
)

// Context is what a filter can see of a packet besides its bytes, as __sk_buff has it.
type Context struct {
	// Protocol is the ethertype.
	Protocol uint16
	// Known says that the fields below are known, so that zero is a value; KnownTag that the VLAN
	// tag is, also if the others are not.
	Known, KnownTag bool
	// VLANProto and VLANTCI are the VLAN tag that is not in the bytes; VLANProto is its
	// ethertype, 0 for no tag.
	VLANProto, VLANTCI uint16
	Mark, Priority     uint32
	// GSOSize and GSOSegs are 0 for a packet of one segment.
	GSOSize, GSOSegs uint32
	Hash, Queue      uint32
}

// given is a field that a Runner can set for a filter.
type given struct {
	name  string
	value func(*Context) uint32
	// detour is the element of cb[] that holds the value if BPF_PROG_RUN does not accept
	// the field itself: the filter's loads are redirected there. noDetour if it does.
	detour int
}

const noDetour = -1

var givens = []given{
	{"mark", func(c *Context) uint32 { return c.Mark }, noDetour},
	{"priority", func(c *Context) uint32 { return c.Priority }, noDetour},
	{"gso_segs", func(c *Context) uint32 { return c.GSOSegs }, noDetour},
	{"gso_size", func(c *Context) uint32 { return c.GSOSize }, noDetour},
	{"vlan_present", func(c *Context) uint32 { return uint32(min(c.VLANProto, 1)) }, 0},
	{"vlan_tci", func(c *Context) uint32 { return uint32(c.VLANTCI) }, 1},
	{"vlan_proto", func(c *Context) uint32 { return uint32(networkOrder(c.VLANProto)) }, 2},
	{"hash", func(c *Context) uint32 { return c.Hash }, 3},
	{"queue_mapping", func(c *Context) uint32 { return c.Queue }, 4},
}

// networkOrder is an ethertype as a filter loads it: in network byte order.
func networkOrder(v uint16) uint16 {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return bits.ReverseBytes16(v)
	}
	return v
}

// offset is that of the field in __sk_buff.
func (g *given) offset() int16 { return skb.Named(g.name).Offset }

// loadedFrom is the offset in __sk_buff from which a Runner's filter loads the field.
func (g *given) loadedFrom() int16 {
	if g.detour == noDetour {
		return g.offset()
	}
	return skb.Named("cb[0]").Offset + 4*int16(g.detour)
}

// skbSize is the size of struct __sk_buff as of Linux 5.18. Older kernels accept it if what
// they do not know is zero.
const skbSize = 192

// encode makes the __sk_buff for BPF_PROG_RUN; nil if all of it is zero. Detours are only
// filled in if the filter's loads were redirected.
func (c *Context) encode(detours bool) []byte {
	var encoded []byte
	for i := range givens {
		g := &givens[i]
		value := g.value(c)
		if value == 0 || g.detour != noDetour && !detours {
			continue
		}
		if encoded == nil {
			encoded = make([]byte, skbSize)
		}
		binary.NativeEndian.PutUint32(encoded[g.loadedFrom():], value)
	}
	return encoded
}

// question is what all of a verdict's programs read of a packet beside its bytes.
type question struct {
	fields, calls          map[string]bool
	below, scratch, unsure bool
	// detours says that loads are redirected to cb[].
	detours bool
}

// prepare finds out what a verdict's programs read. Loads of fields that BPF_PROG_RUN does
// not accept are redirected to cb[], which it does accept, unless the filter uses cb[]
// itself, where it would find zeros on a socket.
func prepare(spec *ebpf.CollectionSpec) question {
	q := question{fields: make(map[string]bool), calls: make(map[string]bool)}
	loads := make(map[string]*asks)
	for name, p := range spec.Programs {
		a := asksOf(p.Instructions)
		loads[name] = a
		for field := range a.fields {
			q.fields[field] = true
		}
		maps.Copy(q.calls, a.calls)
		q.below, q.scratch, q.unsure = q.below || a.below, q.scratch || a.scratch, q.unsure || a.unsure
	}
	if q.scratch || q.unsure {
		return q
	}
	q.detours = true
	for name, a := range loads {
		for i := range givens {
			if g := &givens[i]; g.detour != noDetour {
				detour(spec.Programs[name].Instructions, a.fields[g.name], g)
			}
		}
	}
	return q
}

// detour redirects loads of a field.
func detour(program asm.Instructions, loads []int, g *given) {
	for _, at := range loads {
		old := program[at]
		// Made anew, so that a relocation of the field is not carried over.
		ins := asm.Instruction{
			OpCode: old.OpCode, Dst: old.Dst, Src: old.Src, Offset: old.Offset - g.offset() + g.loadedFrom(), Constant: old.Constant,
		}.WithSymbol(old.Symbol()).WithSource(old.Source())
		if fn := btf.FuncMetadata(&old); fn != nil {
			ins = btf.WithFuncMetadata(ins, fn)
		}
		program[at] = ins
	}
}

// never lists what the filter reads and no Runner can provide.
func (q *question) never() []string {
	var names []string
	for name := range q.fields {
		isGiven := slices.ContainsFunc(givens, func(g given) bool { return g.name == name })
		if !isGiven && name != "protocol" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	names = append(names, slices.Sorted(maps.Keys(q.calls))...)
	if q.below && !q.calls[helpersAsked[asm.FnSkbLoadBytesRelative]] {
		names = append(names, "the headers below offset 0")
	}
	return names
}

// delivery is how a packet was given to the filter.
type delivery struct {
	// bare says that no field was set; protocol that skb->protocol was.
	bare, protocol bool
}

// missing lists what the filter reads and was not given for one packet, although on a socket
// it may have been there.
func (q *question) missing(c *Context, d delivery) []string {
	var names []string
	for i := range givens {
		g := &givens[i]
		if !q.fields[g.name] {
			continue
		}
		isThere := !d.bare && (g.detour == noDetour || q.detours) || g.value(c) == 0
		// For a packet of one segment the kernel counts 0 or 1.
		known := c.Known || c.KnownTag && strings.HasPrefix(g.name, "vlan_")
		if !known || !isThere || g.name == "gso_segs" && c.GSOSize == 0 {
			names = append(names, g.name)
		}
	}
	if q.fields["protocol"] && c.Protocol != 0 && !d.protocol {
		names = append(names, "protocol")
	}
	return names
}
