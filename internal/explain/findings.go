package explain

import (
	"fmt"
	"strings"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// findings returns the findings topic by topic. Each sentence states what is in the file,
// not what else may have happened.
func (s *socket) findings() []Finding {
	topics := []func() Finding{
		s.sayBegins, s.sayType, s.out.sayReach, s.out.sayMetadata, s.sayOwnFilters, s.sayDirection, s.sayIDs, s.sayBytes, s.sayUnseen, s.sayLost,
		s.sayMapping, s.out.sayCalls, s.sayLatency, s.saySent, s.sayCgroup, s.sayWire, s.sayDrops, s.saySelections, s.sayTap,
	}
	all := []Finding{}
	for _, say := range topics {
		f := say()
		if f.Text = strings.TrimSpace(f.Text); f.Text != "" {
			all = append(all, f)
		}
	}
	return all
}

// user tells whether the file has a user view.
func (s *socket) user() bool { return s.views[capture.ViewUser] != nil }

// paired tells whether it is certain which packets the reads belong to.
func (s *socket) paired() bool { return s.user() && s.out.Ambiguous.Packets == 0 }

func (s *socket) sayBegins() Finding {
	f := Finding{Topic: "begins"}
	v := s.views[capture.ViewKernel]
	switch {
	case v == nil:
		f.Text = "The file has no kernel view of this socket."
		return f
	case v.out.Packets == 0:
		f.Text = "The kernel view has no packets."
		if k, ok := capture.KindByName(s.out.Kind); ok && k.NeverFilters() {
			f.Text += " A socket of this kind takes a filter and never runs it."
		}
		return f
	case v.mixed:
		f.Text = "Not all packets of the kernel view begin with the same layer."
		return f
	}
	switch s.out.Begins {
	case "link":
		f.Text = "The kernel view begins with the link header: the filter gets whole frames."
	case "network":
		f.Text = "The kernel view begins with the IP header. There is no link header at offset 0."
	case "transport":
		f.Text = "The kernel view begins with the transport header"
		if len(s.out.Protocols) > 0 {
			f.Text += " (" + strings.Join(s.out.Protocols, ", ") + ")"
		}
		f.Text += ": there is no link and no IP header at offset 0." + v.saySynthetic()
	case "message":
		f.Text = "The kernel view begins with the message itself: there is no link, IP or transport header before it."
	}
	return f
}

// sayType says what filters on this type of socket see, and what its userspace gets.
func (s *socket) sayType() Finding {
	f := Finding{Topic: "type"}
	v := s.views[capture.ViewKernel]
	k, ok := capture.KindByName(s.out.Kind)
	if !ok || v == nil || v.out.Packets == 0 || v.mixed {
		return f
	}
	switch udp := k.Protocol() == header.ProtocolUDP || k.Protocol() == header.ProtocolUDPLite; {
	case k.TakesProtocol() && s.out.Begins == "network":
		f.Text = "A filter on a SOCK_RAW socket sees every packet from the IP header on, and userspace gets the same bytes."
	case k.TakesProtocol() || s.out.Begins != "transport":
	case s.stream:
		f.Text = "A filter on a SOCK_STREAM socket sees every segment from the TCP header on, also of the handshake and of ACKs, and userspace gets the stream alone."
	case udp:
		f.Text = "A filter on a SOCK_DGRAM socket sees every datagram from the UDP header on, and userspace gets the payload alone."
	}
	return f
}

// saySynthetic says which IP headers are synthetic.
func (v *view) saySynthetic() string {
	addresses := "."
	if v.invented == v.synthetic {
		addresses = ", and so are its addresses."
	}
	switch v.synthetic {
	case 0:
		return ""
	case v.out.Packets:
		return " The IP header that the file has before it is synthetic" + addresses
	}
	return fmt.Sprintf(" The IP header that the file has before %s of %s is synthetic.", digits(v.synthetic), packetsOf(v.out.Packets))
}

func (o *Socket) sayReach() Finding {
	f := Finding{Topic: "reach"}
	var words []string
	for _, v := range o.Views {
		if v.Disagree > 0 {
			f.Warning = true
			words = append(words, fmt.Sprintf("the %s view has other bytes than the kernel view in %s", v.Name, packetsOf(v.Disagree)))
		}
		if v.Foreign > 0 {
			f.Warning = true
			words = append(words, fmt.Sprintf("%s of the %s view %s left out, not being as ebpfdump writes %s",
				packetsOf(v.Foreign), v.Name, plural(v.Foreign, "is", "are"), plural(v.Foreign, "it", "them")))
		}
		if v.Before == nil || v.Name == "kernel" {
			continue
		}
		switch {
		case v.Before.Least > 0:
			words = append(words, fmt.Sprintf("the %s view begins %s bytes before offset 0", v.Name, v.Before))
		case v.Before.Most < 0:
			words = append(words, fmt.Sprintf("the %s view begins %s bytes behind offset 0", v.Name, Range{-v.Before.Most, -v.Before.Least}))
		case *v.Before == Range{}:
			words = append(words, fmt.Sprintf("the %s view begins at offset 0 as well", v.Name))
		}
	}
	f.Text = sentence(list(words))
	return f
}

// sentence capitalises words and ends them with a full stop.
func sentence(words string) string {
	if words == "" {
		return ""
	}
	return strings.ToUpper(words[:1]) + words[1:] + "."
}

func (s *socket) sayDirection() Finding {
	f := Finding{Topic: "direction"}
	kernel := s.views[capture.ViewKernel]
	if kernel == nil {
		return f
	}
	switch v := kernel.out; {
	case v.Packets == 0:
	case v.Received == v.Packets:
		f.Text = "The kernel view has received packets only (" + digits(v.Received) + ")."
		if s.out.Begins == "transport" && !kernel.mixed {
			f.Text += " On its way out a packet does not pass the filter."
		}
	case v.Undirected == v.Packets:
		f.Text = "The packets of the kernel view have no direction."
	default:
		f.Text = fmt.Sprintf("The kernel view has %s that came in and %s that went out", packetsOf(v.Received), digits(v.Sent))
		if v.Undirected > 0 {
			f.Text += fmt.Sprintf(", and %s without a direction", digits(v.Undirected))
		}
		f.Text += "."
	}
	return f
}

func (s *socket) sayIDs() Finding {
	f := Finding{Topic: "ids"}
	if c := s.out.Ambiguous; c.Packets > 0 {
		f.Warning = true
		f.Text = fmt.Sprintf("The id of %s is that of another one as well (%s), so it is not sure which packets the reads belong to. "+
			"Captures that ebpfdump convert puts together keep their ids apart.", packetsOf(c.Packets), c.IDs)
	}
	if c := s.twins.apart; c.Packets > 0 {
		f.Text += fmt.Sprintf(" Several captures are in the file: %s %s the id of another one (%s), which has other addresses.",
			packetsOf(c.Packets), plural(c.Packets, "has", "have"), c.IDs)
	}
	return f
}

// reference names the view that the user view is compared with: the kernel view, or the
// one that replaces it.
func (s *socket) reference() string {
	for _, v := range s.out.Views {
		if s.out.Begins == "" && v.Name != "user" && v.Name != "sent" && v.Name != "drop" && v.Packets > 0 {
			return v.Name + " view"
		}
	}
	return "kernel view"
}

func (s *socket) sayBytes() Finding {
	f := Finding{Topic: "bytes"}
	c, peeks := &s.out.Comparison, s.out.Mapping.Peeks
	switch {
	case !s.user() && s.unfollowed.Packets > 0:
		f.Text = "What processes read from such sockets is not followed: the file does not tell what userspace got."
	case !s.user():
		f.Text = "The file has no user view: it does not tell what userspace got."
	case c.Reads == 0 && peeks > 0:
		f.Text = fmt.Sprintf("No read of the file took bytes: userspace only peeked, in %s.", callsOf(peeks))
	case c.Reads == 0:
		f.Text = "No read of the file has bytes."
	case c.Differ.Packets > 0:
		f.Warning = true
		f.Text = fmt.Sprintf("The views differ: %s of %s %s other bytes than the %s (beginning in %s).",
			digits(c.Differ.Packets), readsOf(c.Reads), plural(c.Differ.Packets, "has", "have"), s.reference(), c.Differ.named())
	case s.out.Packets == 0 && c.Same+c.Partial == 0:
		f.Text = fmt.Sprintf("There is nothing to compare the %s of %s with.", bytesOf(c.Bytes), readsOf(c.Reads))
	case c.Same+c.Partial == 0 && s.distant > 0:
		f.Text = "Nothing could be compared." + s.sayIncomplete()
	case c.Same+c.Partial == 0:
		f.Text = fmt.Sprintf("Nothing could be compared: of no read does the file have the bytes of both sides (%s).", readsOf(c.Reads))
	case c.Same == c.Reads:
		f.Text = fmt.Sprintf("All that userspace got is in the %s: %s in %s%s.", s.reference(), bytesOf(c.Bytes), readsOf(c.Reads), s.out.behind())
	default:
		f.Text = fmt.Sprintf("What could be compared is the same in both views: %s of %s%s.", digits(c.Compared), bytesOf(c.Bytes), s.out.behind())
		f.Text += s.sayIncomplete()
	}
	return f
}

// sayIncomplete says which reads could not be compared completely.
func (s *socket) sayIncomplete() (text string) {
	c := &s.out.Comparison
	if c.Partial > 0 {
		text += fmt.Sprintf(" Of %s only a part could be.", readsOf(c.Partial))
	}
	if none := c.Unknown - s.unsure - s.distant; none > 0 {
		text += fmt.Sprintf(" Of %s the file has no bytes to compare with.", readsOf(none))
	}
	if s.distant > 0 {
		text += fmt.Sprintf(" Of %s the packets lie too far back in the file to be compared.", readsOf(s.distant))
	}
	if s.unsure > 0 {
		text += fmt.Sprintf(" Of %s it is not sure which packets to compare with.", readsOf(s.unsure))
	}
	return text
}

// behind says how many bytes of headers precede the bytes that userspace got.
func (o *Socket) behind() string {
	r := o.Unseen.HeaderSize
	switch {
	case r == nil:
		return ""
	case *r == Range{}:
		return ", from the first byte of a packet on"
	}
	return fmt.Sprintf(", behind %s %s of headers", r, plural(uint64(r.Most), "byte", "bytes"))
}

func (s *socket) sayUnseen() Finding {
	f := Finding{Topic: "unseen"}
	if !s.paired() {
		return f
	}
	var words []string
	say := func(c Count, what string) {
		if c.Packets > 0 {
			words = append(words, what+" ("+c.named()+")")
		}
	}
	u := &s.out.Unseen
	say(u.Handshake, "the handshake")
	say(u.ACK, "ACKs without payload")
	if u.HeaderSize != nil && u.HeaderSize.Most > 0 {
		words = append(words, fmt.Sprintf("the headers of what it got, %s %s each (%s)",
			u.HeaderSize, plural(uint64(u.HeaderSize.Most), "byte", "bytes"), u.Headers.named()))
	}
	say(u.Repeated, "payload that came again")
	say(s.resets.read, "the reset, of which it only got an error or the end of the stream")
	say(s.resets.unread, "the reset, with which no read ended")
	say(s.fins.read, "the FIN, of which it only got that the stream has ended")
	say(s.fins.unread, "the FIN, with which no read ended")
	if len(words) > 0 {
		f.Text = "Userspace never saw " + strings.Join(words, "; ") + "."
	} else if s.complete() && s.out.Comparison.Same == s.out.Comparison.Reads && u.HeaderSize != nil {
		f.Text = "Userspace got the packets as the filter saw them."
	}
	return f
}

// complete tells whether the file has reads of everything that could be read.
func (s *socket) complete() bool {
	u := &s.out.Undelivered
	undelivered := u.ByFilter.Packets + u.ByQueue.Packets + u.ByKernel.Packets + u.PassedOver.Packets + u.AtEnd.Packets + u.NotKnown.Packets + u.Trimmed.Packets + u.ByBuffer.Packets + u.InPart.Packets
	if c := s.out.Cgroup; c != nil && c.Alone.Packets > 0 {
		return false
	}
	if d := s.out.Drops; d != nil && d.Unseen.Packets > 0 {
		return false
	}
	if w := s.out.Wire; w != nil && w.Stopped.Bytes > 0 || s.strayed > 0 {
		return false
	}
	return s.paired() && s.unfollowed.Packets == 0 && s.out.Delivered.Packets > 0 && s.out.Comparison.Reads > 0 && s.out.Comparison.Differ.Packets == 0 && undelivered == 0 && s.out.Losses == Losses{} &&
		!s.mayLack(capture.ViewKernel) && len(s.undivided[capture.ViewUser]) == 0
}

func (s *socket) sayLost() Finding {
	f := Finding{Topic: "lost"}
	if s.out.Packets == 0 || s.user() && !s.paired() {
		f.Text = strings.TrimSpace(s.sayLoss(capture.ViewUser, quantity(s.out.Losses.Calls, "piece", "pieces")))
		f.Warning = f.Text != ""
		return f
	}
	var words []string
	say := func(c Count, what string) {
		if c.Packets > 0 {
			f.Warning = true
			words = append(words, fmt.Sprintf("%s (%s) %s", packetsOf(c.Packets), strings.TrimPrefix(strings.TrimPrefix(c.named(), "packets "), "packet "), what))
		}
	}
	u, l := &s.out.Undelivered, &s.out.Losses
	say(u.ByFilter, "dropped by the filter, whose verdict was 0")
	say(u.Trimmed, fmt.Sprintf("truncated by the filter, by %s in all", bytesOf(u.Trimmed.Bytes)))
	say(u.ByQueue, "dropped by the receive queue, which was full")
	say(u.ByKernel, "dropped by the kernel, which says why")
	say(u.PassedOver, "passed over: later ones are joined to reads, and the file does not say why "+plural(u.PassedOver.Packets, "this is", "these are")+" not")
	say(u.ByBuffer, fmt.Sprintf("cut by a buffer that was too small, by %s in all", bytesOf(u.ByBuffer.Bytes)))
	say(u.InPart, fmt.Sprintf("read in part, without %s", bytesOf(u.InPart.Bytes)))
	say(u.AtEnd, "joined to no read up to the end of the file")
	switch k, ok := capture.KindByName(s.out.Kind); {
	case len(words) > 0:
		f.Text = "Not read from this socket as far as the file tells, or not whole: " + strings.Join(words, "; ") + "."
		if ok && k.Copies() && u.ByFilter.Packets+u.Trimmed.Packets+u.ByQueue.Packets > 0 {
			f.Text += " What this socket gets are copies: the packets themselves went on."
		}
	case s.complete():
		f.Text = "All payload reached userspace."
	}
	if l.Queue > u.ByQueue.Packets+u.ByKernel.Packets {
		f.Warning = true
		f.Text += fmt.Sprintf(" The receive queue counted %s that it dropped.", packetsOf(l.Queue))
	}
	f.Warning = f.Warning || l.Calls > 0 || s.lostElsewhere(capture.ViewUser)
	f.Text += s.sayLoss(capture.ViewUser, quantity(l.Calls, "piece", "pieces"))
	if l.QueueOrCalls > 0 {
		f.Warning = true
		f.Text += fmt.Sprintf(" The receive queue dropped, or the capture lost of what calls returned: %s.", quantity(l.QueueOrCalls, "message", "messages"))
	}
	if l.Late > 0 {
		f.Text += fmt.Sprintf(" Whose packets are forgotten, since more lies between than is kept: %s.", readsOf(l.Late))
		if u.NotKnown.Packets > 0 {
			f.Text += fmt.Sprintf(" So it is not known which of %s (%s) were read.", packetsOf(u.NotKnown.Packets), u.NotKnown.IDs)
		}
	}
	if n := s.unfollowed.Packets; n > 0 && s.user() {
		f.Text += fmt.Sprintf(" Reads of some processes are not followed here, so it is not known whether they got %s.", s.unfollowed.named())
	}
	return f
}

func sentenceStart(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func (s *socket) sayMapping() Finding {
	f := Finding{Topic: "mapping"}
	m := &s.out.Mapping
	var words []string
	say := func(n uint64, counted, what string) {
		if n > 0 {
			words = append(words, counted+" "+what)
		}
	}
	if s.paired() {
		say(m.OneToOne, readsOf(m.OneToOne), plural(m.OneToOne, "got one whole packet", "got one whole packet each"))
		say(m.SeveralPackets, readsOf(m.SeveralPackets), "got several packets at once, at most "+digits(m.Most))
		say(m.PartOfPacket, readsOf(m.PartOfPacket), "got a part of one packet")
	}
	say(m.Ends, readsOf(m.Ends), "got the end of a stream")
	say(m.Errors, readsOf(m.Errors), "got an error")
	say(m.Before, readsOf(m.Before), "got bytes that came before the tap")
	say(m.Peeks, callsOf(m.Peeks), "looked at bytes and left them in the queue (MSG_PEEK)")
	f.Text = sentence(strings.Join(words, "; "))
	if m.SplitPackets > 0 && s.paired() {
		f.Text += fmt.Sprintf(" %s fed several reads, at most %s.", sentenceStart(packetsOf(m.SplitPackets)), digits(m.MostReads))
	}
	return f
}

func (s *socket) sayLatency() Finding {
	f := Finding{Topic: "latency"}
	if !s.paired() {
		return f
	}
	if !s.out.Timed {
		if s.out.Mapping.Reads > 0 && s.out.Packets > 0 {
			f.Text = "Not both views have real times, so there is no latency to tell."
		}
		return f
	}
	l := s.out.Latency
	if l == nil {
		return f
	}
	f.Text = "From the filter to the return of the read: " + duration(l.Median) + "."
	if l.Reads > 1 {
		f.Text = fmt.Sprintf("From the filter to the return of the read: median %s, 99th percentile %s, from %s to %s (%s).",
			duration(l.Median), duration(l.P99), duration(l.Least), duration(l.Most), readsOf(l.Reads))
	}
	if l.Negative > 0 {
		f.Warning = true
		f.Text += fmt.Sprintf(" %s came before %s and %s not counted.", sentenceStart(readsOf(l.Negative)),
			plural(l.Negative, "its packet", "their packets"), plural(l.Negative, "is", "are"))
	}
	return f
}

func (s *socket) sayTap() Finding {
	f := Finding{Topic: "tap"}
	v := s.views[capture.ViewKernel]
	if v == nil || v.printed {
		return f
	}
	switch lost, statistics := s.out.Losses.Tap, v.out.Statistics; {
	case lost > 0:
		f.Warning = true
		f.Text = fmt.Sprintf("The tap lost %s.", packetsOf(lost))
		if s.user() {
			f.Text = fmt.Sprintf("The tap lost %s: what userspace got of %s cannot be compared.", packetsOf(lost), plural(lost, "it", "them"))
		}
		f.Text += s.sayWhoseTap()
	case statistics == nil:
		f.Text = "The file has no statistics at its end, so losses of the tap after its last packet are not known."
	case statistics.Delivered < v.out.Packets:
		f.Text = fmt.Sprintf("The file has statistics of only %s of its %s, so losses of the tap are not known.",
			digits(statistics.Delivered), packetsOf(v.out.Packets))
	case s.lostElsewhere(capture.ViewKernel):
		f.Warning = true
		f.Text = s.sayElsewhere(capture.ViewKernel)
	case statistics.Delivered > v.out.Packets:
		f.Text = fmt.Sprintf("The tap lost nothing; of the %s that it recorded the file has %s.", packetsOf(statistics.Delivered), digits(v.out.Packets))
	case statistics.Received == 0:
		f.Text = "The filter saw no packet."
	case statistics.NotWanted > 0:
		f.Text = fmt.Sprintf("The tap lost nothing: of %s that the filter saw %s %s in the file, and the capture filter has left out the rest.",
			packetsOf(statistics.Received), digits(statistics.Delivered), plural(statistics.Delivered, "is", "are"))
	default:
		f.Text = fmt.Sprintf("The tap lost nothing: what the filter saw is all in the file (%s).", packetsOf(statistics.Received))
	}
	if v.out.Cut > 0 {
		f.Text += fmt.Sprintf(" Not in the file whole: %s of the kernel view.", packetsOf(v.out.Cut))
	}
	return f
}
