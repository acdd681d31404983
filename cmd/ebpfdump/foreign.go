package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/offset"
)

// asKind is the kind of socket that --as names; nil without.
func asKind(name string) (*capture.Kind, error) {
	if name == "" {
		return nil, nil
	}
	kind, ok := capture.KindByName(name)
	if ok && offset.Has(kind) {
		return kind, nil
	}
	var names []string
	for _, k := range asKinds() {
		names = append(names, k.Name)
	}
	return nil, usagef("--as %s: no capture of a network has what a filter on such a socket sees: choose one of %s", name, strings.Join(names, ", "))
}

// asKinds are the kinds of socket that --as takes.
func asKinds() []capture.Kind {
	return slices.DeleteFunc(capture.Kinds(), func(k capture.Kind) bool { return !offset.Has(&k) })
}

// foreign counts packets of captures of other programs.
type foreign struct {
	number uint64 // of the packet in its file, from 1 on
	kinds  []string
	// out counts those that no such socket gets, and why. wanted is the kind that was asked for last.
	out    [offset.Reasons]uint64
	wanted *capture.Kind
	// link is a link type that is not known.
	link uint16
}

// other runs the filter on a packet of another program's capture, if a socket would get it.
func (r *replay) other(p *capture.Packet) error {
	kind := r.as
	if kind == nil {
		var ok bool
		if kind, ok = offset.Default(p.Interface); !ok {
			r.foreign.leaveOut(p, offset.OtherLink)
			return nil
		}
	}
	r.foreign.wanted = kind
	seen, reason := offset.Of(p, kind)
	if reason != 0 {
		r.foreign.leaveOut(p, reason)
		return nil
	}
	if !slices.Contains(r.foreign.kinds, kind.Name) {
		r.foreign.kinds = append(r.foreign.kinds, kind.Name)
	}
	data := r.whole(seen.Data, seen.Len)
	return r.packet(p, given{data: data, missing: len(data) - len(seen.Data), as: kind.Name, context: bpf.Context{
		Protocol: seen.Protocol, KnownTag: seen.TagKnown, VLANProto: seen.VLANProto, VLANTCI: seen.VLANTCI,
	}})
}

func (f *foreign) leaveOut(p *capture.Packet, reason offset.Reason) {
	f.out[reason]++
	if reason == offset.OtherLink {
		f.link = p.Interface.LinkType
	}
}

// taken says as what packets were given to the filter.
func (f *foreign) taken() string {
	if len(f.kinds) == 0 {
		return ""
	}
	return ", as " + strings.Join(f.kinds, " or ") + " sockets get them"
}

// closingLines say what was left out.
func (f *foreign) closingLines(line func(format string, args ...any)) {
	for reason, n := range f.out {
		if n > 0 {
			line("%s left out: %s", counted(n, "packet"), f.why(offset.Reason(reason), n))
		}
	}
}

// why says why so many packets are not those of a socket.
func (f *foreign) why(reason offset.Reason, n uint64) string {
	they, their, them := "they are", "their", "them"
	if n == 1 {
		they, their, them = "it is", "its", "it"
	}
	switch kind := f.wanted; reason {
	case offset.OtherLayer:
		if kind.Layer() == capture.LayerLink {
			return "the capture has no link header of " + them + ", with which " + kind.Name + " sockets begin"
		}
		return "what follows " + their + " link header is no packet of IP"
	case offset.OtherProtocol:
		return they + " of another protocol than " + kind.Name + " sockets get"
	case offset.Fragment:
		if n == 1 {
			return "it is a fragment, and " + kind.Name + " sockets get what the kernel makes of all of them"
		}
		return "they are fragments, and " + kind.Name + " sockets get what the kernel makes of them all"
	case offset.Damaged:
		return their + " headers are cut or wrong, and the kernel throws such packets away before a filter sees them"
	}
	return fmt.Sprintf("%s link type (%d) is none of Ethernet, RAW, IPv4, IPv6, Linux cooked and loopback", their, f.link)
}

// nothing says why none of another program's packets was given to the filter; nil if there are none.
func (f *foreign) nothing(name string) error {
	for reason, n := range f.out {
		if n == 0 {
			continue
		}
		next := "choose another kind with --as"
		if offset.Reason(reason) == offset.OtherLink {
			next = "convert them to one of these, or record them with ebpfdump capture"
		}
		return fmt.Errorf("%s has no packet for the filter: %s: %s", name, f.why(offset.Reason(reason), n), next)
	}
	return nil
}
