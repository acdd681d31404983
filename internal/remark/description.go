package remark

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/decoding"
)

// The end of an interface's description if the Meta of all its packets is known. In
// packets of the link layer the VLAN tag is put back.
const (
	metaKnown = between + "a comment tells the VLAN tag, mark, priority and GSO of each packet that had any"
	metaFrame = metaKnown + between + "such a tag is put back after the addresses, as libpcap does it: the filter did not see it there"
)

// Phrases by which a description is recognised. Older files contain them in other
// sentences.
const (
	synthetic     = "header is synthetic"
	invented      = synthetic + ", and so are its addresses"
	printed       = "as its filter printed them"
	serverPrinted = "as it printed it"
	dumped        = "as a text has them in hexadecimal"
	noTimes       = "there are no times"
	lentTimes     = "times are those of the packets that brought it"
	ofProcess     = between + "process "
	ofSegments    = "headers of IP and TCP or UDP are synthetic"
	processEnd    = "), "
	hasFilter     = between + "the socket has a filter of its own: "
	hasTap        = between + "the socket has a filter: " // that of another capture

	onInterface = " as packet sockets get them on the interface "
	atInterface = between + "what arrives before a firewall, what leaves behind it"
	// which socket of how many
	ofGroup = "socket %d of %d of a reuseport group"

	decodedAs = between + "decoded as "
	aloneEnd  = ", each call by itself"

	streamHeaders = between + "the " + ofSegments + ", so that both directions can be put together" + between + "their addresses are the number of the connection"

	headersElsewhere = "no headers of IP and TCP or UDP here"
)

// Description is the description of an interface in a file.
func Description(i *capture.Interface) string {
	text := i.Description
	if text == "" {
		text = describe(i)
	}
	switch {
	case !i.HasMeta:
		return text
	case i.Layer == capture.LayerLink:
		return text + metaFrame
	}
	return text + metaKnown
}

// describe describes the packets of an interface, from a capture or a text.
func describe(i *capture.Interface) string {
	switch i.Source {
	case capture.SourceTap:
		return ofTap(i)
	case capture.SourceTrace:
		return fmt.Sprintf("packets of a %s socket "+printed+", from offset 0%s", i.Kind, header(i))
	case capture.SourceDump:
		return fmt.Sprintf("packets "+dumped+", which a %s socket would have, from offset 0%s", i.Kind, header(i))
	case capture.SourceServer:
		if i.Times == capture.TimesLent {
			return "what a server got, " + serverPrinted + between + lentTimes
		}
		return "what a server got, " + serverPrinted + between + noTimes + ", only an order: a microsecond each"
	}
	return ""
}

// ofTap describes a view of the sockets of a kind.
func ofTap(i *capture.Interface) string {
	kind, ok := capture.KindByName(i.Kind)
	if !ok {
		return ""
	}
	var b strings.Builder
	b.WriteString(ofView(i, kind))
	switch {
	case i.Header == capture.HeaderSegment && kind.Counted() && !decoding.Alone(i.DecodeAs):
		b.WriteString(streamHeaders)
	case i.Header == capture.HeaderSegment && !kind.Counted():
		b.WriteString(between + "the " + ofSegments + ", so that both directions can be put together" + between + "addresses and sequence numbers are real where the kernel tells them")
	}
	if i.Header == capture.HeaderElsewhere {
		b.WriteString(between + "another view has the packets with their own, so there are " + headersElsewhere)
	}
	if i.Process != "" {
		b.WriteString(between + i.Process + ", " + i.Sockets)
	}
	if i.Members > 0 && i.View != capture.ViewSelect {
		fmt.Fprintf(&b, between+ofGroup, i.Member, i.Members)
	}
	if kind.IPv6() && !i.IPv6 {
		b.WriteString(between + "packets of the socket's IPv4 peers")
	}
	b.WriteString(decoded(i.DecodeAs))
	return b.String()
}

// DecodedAs is a description of packets that Wireshark is to take for another protocol than before.
func DecodedAs(description, protocol string) string {
	if before, said := cutDecoded(description); said != "" {
		description = before
	}
	if decoding.Alone(protocol) {
		description = strings.Replace(description, streamHeaders, "", 1)
	}
	return description + decoded(protocol)
}

// cutDecoded takes the name of the protocol off a description, where it is the last that is said.
func cutDecoded(description string) (before, protocol string) {
	at := strings.LastIndex(description, decodedAs)
	if at < 0 {
		return description, ""
	}
	protocol = strings.TrimSuffix(description[at+len(decodedAs):], aloneEnd)
	if decoding.Check(protocol) != nil || description[at:] != decoded(protocol) {
		return description, ""
	}
	return description[:at], protocol
}

func decoded(protocol string) string {
	switch {
	case protocol == "":
		return ""
	case decoding.Alone(protocol):
		return decodedAs + protocol + aloneEnd
	}
	return decodedAs + protocol
}

// ofView says what a view of the sockets of a kind shows, and from where it is taken.
func ofView(i *capture.Interface, kind *capture.Kind) string {
	var b strings.Builder
	joined := i.Process != ""
	switch i.View {
	case capture.ViewKernel:
		b.WriteString(kind.Plural() + " as the socket filter sees them, from offset 0" + header(i))
		fmt.Fprintf(&b, between+"times are within %d ns of the wall clock at the start", i.ClockError)
		if family := kind.Family(); joined && (family == unix.AF_INET || family == unix.AF_INET6) && !strings.HasSuffix(i.Filter, capture.InsideTap) {
			b.WriteString(between + "recorded at the cgroup_skb/ingress hook, just before the socket's own filter")
		}
		switch {
		case capture.IsOtherTap(i.Filter):
			b.WriteString(hasTap + i.Filter)
		case i.Filter != "":
			b.WriteString(hasFilter + i.Filter)
		}
	case capture.ViewUser:
		switch {
		case joined:
			b.WriteString("what receiving system calls returned to the process")
		case kind.Family() == unix.AF_PACKET:
			b.WriteString("what recvmsg returned to userspace" + between + "a VLAN tag is not in it: a socket gets that as PACKET_AUXDATA")
		default:
			b.WriteString("what recvmsg returned to userspace")
		}
	case capture.ViewSent:
		if joined {
			b.WriteString("what the process handed to sending system calls" + between)
			if i.Header == capture.HeaderElsewhere {
				b.WriteString("times are those when the calls ended")
			} else {
				b.WriteString("times are those when the calls began, or ended if they took longer than 20 ms")
			}
		} else {
			b.WriteString("what was sent back")
		}
	case capture.ViewCgroup:
		b.WriteString(kind.Plural() + " from the IP header on, as the kernel's cgroup hooks see them" + between +
			"cgroup_skb/ingress just before the socket's filter, cgroup_skb/egress as the socket sends them")
	case capture.ViewDrop:
		b.WriteString(kind.Plural() + " that the kernel freed without having used them, from the IP header on" + between +
			"the reason and the function are the kernel's own words")
	case capture.ViewWire:
		b.WriteString(kind.Plural() + onInterface + i.Device + atInterface)
	case capture.ViewSelect:
		if i.Layer == capture.LayerMessage {
			b.WriteString("payloads as the socket filter sees them that chooses a socket of a reuseport group, from offset 0")
		} else {
			b.WriteString(kind.Plural() + " as the program sees them that chooses a socket of a reuseport group, from data to data_end" + header(i))
		}
	case capture.ViewNet, capture.ViewLink:
		layer := map[capture.View]string{capture.ViewNet: "network", capture.ViewLink: "link"}[i.View]
		b.WriteString("the same packets from the " + layer + " header on, which the filter reaches with bpf_skb_load_bytes_relative")
	}
	return b.String()
}

// header says where the IP header of each packet in the file comes from.
func header(i *capture.Interface) string {
	version := 4
	if i.IPv6 {
		version = 6
	}
	switch i.Header {
	case capture.HeaderSynthetic:
		return fmt.Sprintf(between+"the IPv%d "+synthetic+", its addresses are real", version)
	case capture.HeaderInvented:
		return fmt.Sprintf(between+"the IPv%d "+invented, version)
	}
	return ""
}

// DescribeTrace describes the packets of trace text, whose times count from boot; boot is
// the zero time if unknown.
func DescribeTrace(i *capture.Interface, boot time.Time) {
	since := "the epoch, since nobody said when that was"
	if !boot.IsZero() {
		since = boot.UTC().Format(time.RFC3339Nano)
	}
	i.Description = describe(i) + between + "times count from boot, which is taken to be " + since
}

// DescribeDump describes the packets of a dump in hexadecimal, whose times are perhaps without a date.
func DescribeDump(i *capture.Interface, undated bool) {
	i.Description = describe(i)
	switch {
	case i.Times == capture.TimesNone:
		i.Description += between + noTimes + ", only an order: a microsecond each"
	case undated:
		i.Description += between + "the times have no date, and the first day is taken to be that of the epoch"
	}
}

// ReadDescription parses a description into the fields of an interface.
func ReadDescription(text string, i *capture.Interface) {
	i.Description = text
	for _, said := range []string{metaFrame, metaKnown} {
		if description, ok := strings.CutSuffix(text, said); ok {
			i.Description, i.HasMeta = description, true
			break
		}
	}
	says := func(words string) bool { return strings.Contains(i.Description, words) }
	switch {
	case says(headersElsewhere):
		i.Header = capture.HeaderElsewhere
	case says(ofSegments):
		i.Header = capture.HeaderSegment
	case says(invented):
		i.Header = capture.HeaderInvented
	case says(synthetic):
		i.Header = capture.HeaderSynthetic
	}
	switch {
	case says(noTimes):
		i.Times = capture.TimesNone
	case says(lentTimes):
		i.Times = capture.TimesLent
	}
	switch {
	case says(printed):
		i.Source = capture.SourceTrace
	case says(serverPrinted):
		i.Source = capture.SourceServer
	case says(dumped):
		i.Source = capture.SourceDump
	}
	if _, rest, ok := strings.Cut(i.Description, onInterface); ok {
		if device, _, whole := strings.Cut(rest, atInterface); whole {
			i.Device = device
		}
	}
	for _, has := range []string{hasFilter, hasTap} {
		if _, rest, ok := strings.Cut(i.Description, has); ok {
			i.Filter, _, _ = strings.Cut(rest, between)
			break
		}
	}
	for _, said := range strings.Split(i.Description, between) {
		var member, members int
		if n, err := fmt.Sscanf(said, ofGroup, &member, &members); n == 2 && err == nil && 0 <= member && member < members && members <= capture.MaxReuseport {
			i.Member, i.Members = member, members
		}
	}
	_, i.DecodeAs = cutDecoded(i.Description)
	if _, rest, ok := strings.Cut(i.Description, ofProcess); ok {
		if name, _, whole := strings.Cut(rest, processEnd); whole {
			i.Process = strings.TrimPrefix(ofProcess, between) + name + processEnd[:1]
		}
	}
}
