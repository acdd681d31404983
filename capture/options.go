package capture

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// Options say how a capture records, whatever it captures. The zero value is usable: all of
// each packet, in the views kernel and user, without a limit.
type Options struct {
	// Views to hand to the sink, each once; ViewCgroup needs a kernel with BTF, CAP_PERFMON and
	// CAP_NET_ADMIN, ViewDrop Linux 5.17 with BTF and CAP_PERFMON, ViewWire CAP_PERFMON and CAP_NET_RAW, and
	// CAP_SYS_ADMIN where the sockets are in another network namespace. Default: ViewKernel and ViewUser. Without the
	// kernel's views, those of the bytes that went through TCP and UDP sockets have
	// HeaderSegment if ViewSent is among them.
	Views []View
	// Packets ends the capture after so many packets of the kernel view, and their deliveries
	// to userspace. Default: 0, no limit.
	Packets uint64
	// Snaplen is the most bytes kept of a packet. Default: bpf.MaxSnaplen.
	Snaplen int
	// RingSize is the size in bytes of each ring buffer: one for packets, and for a Live
	// another one for what processes receive. Default: bpf.DefaultRingSize.
	RingSize int
	// Immediate hands packets on after a millisecond or two, at the cost of reading the ring a
	// thousand times a second while packets come.
	Immediate bool
	// Verdict decides what the sockets keep of each packet, which changes what their readers
	// get. Default: everything.
	Verdict *bpf.Verdict
	// DecodeAs is the name of a protocol in Wireshark, such as "http" or "dbus", which is to take what
	// goes through unix streams for it. Default: Wireshark finds what it finds.
	DecodeAs string
	// Expression chooses the packets that are recorded, and with them what userspace got of them, in each view by
	// that view's bytes; a socket gets all the same. What is sent or received without a packet that is known is
	// chosen by its addresses and bytes. It goes with kinds of sockets that have IP packets, and with
	// ViewSelect if the program that chooses is no socket filter. Default: all.
	Expression *bpf.Expression
	// Notice is called with what a user should know during the capture. Default: nothing is
	// called.
	Notice func(string)
}

func (o Options) withDefaults() Options {
	if len(o.Views) == 0 {
		o.Views = []View{ViewKernel, ViewUser}
	}
	if o.Snaplen == 0 {
		o.Snaplen = bpf.MaxSnaplen
	}
	if o.Notice == nil {
		o.Notice = func(string) {}
	}
	return o
}

// captured are the views that a capture can have.
var captured = []View{ViewKernel, ViewUser, ViewNet, ViewLink, ViewSent, ViewCgroup, ViewWire, ViewDrop, ViewSelect}

// Views lists the views that a capture can have on this kernel. Not every kind of socket has all of
// them.
func Views() []View {
	var all []View
	for _, v := range captured {
		if v != ViewDrop || bpf.TellsDrops() {
			all = append(all, v)
		}
	}
	return all
}

// ViewNames lists the views that a capture can have, for people.
func ViewNames() string {
	var names []string
	for _, v := range captured {
		names = append(names, v.String())
	}
	return strings.Join(names, ", ")
}

// check refuses views that no capture has.
func (o *Options) check() error {
	for n, v := range o.Views {
		switch {
		case !slices.Contains(captured, v):
			return fmt.Errorf("there is no view %d of a socket: choose some of %v", v, ViewNames())
		case slices.Contains(o.Views[:n], v):
			return fmt.Errorf("the view %v is chosen twice", v)
		}
	}
	return nil
}

func (o *Options) wants(v View) bool { return slices.Contains(o.Views, v) }
