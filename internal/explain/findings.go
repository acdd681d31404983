package explain

import (
	"fmt"
	"strings"

	"github.com/ebpfdump/ebpfdump/capture"
)

// findings says what was found, one topic after the other.
func (s *socket) findings() []Finding {
	topics := []func() Finding{
		s.out.sayBegins, s.out.sayReach, s.out.sayBeside, s.out.sayDirection, s.sayBytes, s.out.sayUnseen, s.sayLost,
		s.out.sayMapping, s.sayLatency, s.sayTap,
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

// user tells whether the file says anything of what userspace got.
func (s *socket) user() bool { return s.views[capture.ViewUser] != nil }

func (o *Socket) sayBegins() Finding {
	f := Finding{Topic: "begins"}
	protocols := strings.Join(o.Protocols, ", ")
	switch o.Begins {
	case "link":
		f.Text = "The kernel view begins with the link header: the filter gets whole frames."
	case "network":
		f.Text = "The kernel view begins with the IP header. There is no link header at offset 0."
	case "transport":
		f.Text = "The kernel view begins with the transport header"
		if protocols != "" {
			f.Text += " (" + protocols + ")"
		}
		f.Text += ": there is no link and no IP header at offset 0."
		if o.Synthetic {
			f.Text += " The IP header that the file has before it is synthetic."
		}
	case "message":
		f.Text = "The kernel view begins with the message itself: there is no header at all."
	default:
		f.Text = "The file has no kernel view of this socket."
	}
	return f
}

func (o *Socket) sayReach() Finding {
	f := Finding{Topic: "reach"}
	var words []string
	for _, v := range o.Views {
		if v.Disagree > 0 {
			f.Warning = true
			words = append(words, fmt.Sprintf("in %s the %s view has other bytes than the kernel view", packetsOf(v.Disagree), v.Name))
		}
		if v.Foreign > 0 {
			f.Warning = true
			words = append(words, fmt.Sprintf("%s of the %s view are not as ebpfdump writes them, and are left out", packetsOf(v.Foreign), v.Name))
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
			words = append(words, fmt.Sprintf("the %s view is the same as the kernel view", v.Name))
		}
	}
	f.Text = sentence(list(words))
	return f
}

// sentence makes one of words.
func sentence(words string) string {
	if words == "" {
		return ""
	}
	return strings.ToUpper(words[:1]) + words[1:] + "."
}

func (o *Socket) sayDirection() Finding {
	f := Finding{Topic: "direction"}
	for _, v := range o.Views {
		if v.Name != "kernel" {
			continue
		}
		switch {
		case v.Packets == 0:
		case v.Received == v.Packets:
			f.Text = "The kernel view has received packets only (" + digits(v.Received) + ")."
			if o.Begins == "transport" {
				f.Text += " What the socket sends does not pass its filter."
			}
		case v.Undirected == v.Packets:
			f.Text = "The packets have no direction."
		default:
			f.Text = fmt.Sprintf("The kernel view has %s that came in and %s that went out.",
				packetsOf(v.Received), digits(v.Sent))
		}
	}
	return f
}

func (s *socket) sayBytes() Finding {
	f := Finding{Topic: "bytes"}
	c := &s.out.Comparison
	switch {
	case !s.user():
		f.Text = "The file has nothing of the user view: it does not tell what userspace got."
		return f
	case c.Reads == 0:
		f.Text = "Userspace got no bytes."
		return f
	case c.Differ.Packets > 0:
		f.Warning = true
		f.Text = fmt.Sprintf("The views differ: %s of %s have other bytes than the kernel view (beginning in %s).",
			digits(c.Differ.Packets), readsOf(c.Reads), c.Differ.named())
	case s.out.Begins == "":
		f.Text = fmt.Sprintf("There is nothing to compare the %s of %s with.", bytesOf(c.Bytes), readsOf(c.Reads))
		return f
	case c.Same+c.Partial == 0:
		f.Text = fmt.Sprintf("Nothing could be compared: the packets of %s are not in the kernel view.", readsOf(c.Reads))
		return f
	case c.Same == c.Reads:
		f.Text = fmt.Sprintf("Both views hold the same bytes: the %s that userspace got in %s are all in the kernel view",
			bytesOf(c.Bytes), readsOf(c.Reads))
		f.Text += s.out.behind() + "."
		return f
	default:
		f.Text = fmt.Sprintf("As far as the file has them, both views hold the same bytes: %s of %s were compared",
			digits(c.Compared), digits(c.Bytes))
		f.Text += s.out.behind() + "."
	}
	if c.Partial > 0 {
		f.Text += fmt.Sprintf(" Of %s the kernel view has only a part.", readsOf(c.Partial))
	}
	if c.Unknown > 0 {
		f.Text += fmt.Sprintf(" Of %s the file has no bytes to compare with.", readsOf(c.Unknown))
	}
	return f
}

// behind tells which headers the bytes of userspace stand behind.
func (o *Socket) behind() string {
	r := o.Unseen.HeaderSize
	switch {
	case r == nil:
		return ""
	case *r == Range{}:
		return ", from its offset 0 on"
	}
	return fmt.Sprintf(", behind %s bytes of headers", r)
}

func (o *Socket) sayUnseen() Finding {
	f := Finding{Topic: "unseen"}
	var words []string
	say := func(c Count, what string) {
		if c.Packets > 0 {
			words = append(words, what+" ("+c.named()+")")
		}
	}
	u := &o.Unseen
	say(u.Handshake, "the handshake")
	say(u.ACK, "ACKs without payload")
	if u.HeaderSize != nil && u.HeaderSize.Most > 0 {
		words = append(words, fmt.Sprintf("the headers of what it got, %s bytes each (%s)", u.HeaderSize, u.Headers.named()))
	}
	say(u.Repeated, "payload that came again")
	say(u.RST, "the reset")
	if u.FIN.Packets > 0 && o.Mapping.Ends > 0 {
		say(u.FIN, "the FIN, of which it only got that the stream has ended")
	} else {
		say(u.FIN, "the FIN")
	}
	if len(words) > 0 {
		f.Text = "Userspace never saw " + strings.Join(words, "; ") + "."
	} else if o.Delivered.Packets > 0 && o.Begins != "" {
		f.Text = "Userspace saw every byte of what it got."
	}
	return f
}

func (s *socket) sayLost() Finding {
	f := Finding{Topic: "lost"}
	if !s.user() || s.out.Packets == 0 {
		return f
	}
	var words []string
	say := func(c Count, what string) {
		if c.Packets > 0 {
			f.Warning = true
			words = append(words, fmt.Sprintf("%s (%s) %s", packetsOf(c.Packets), strings.TrimPrefix(strings.TrimPrefix(c.named(), "packets "), "packet "), what))
		}
	}
	u := &s.out.Undelivered
	say(u.ByFilter, "dropped by the filter, whose verdict was 0")
	say(u.Truncated, fmt.Sprintf("truncated by the filter, by %s in all", bytesOf(u.Truncated.Bytes)))
	say(u.ByQueue, "dropped by the receive queue, which was full")
	say(u.PassedOver, "passed over: later ones were read, and the file does not say why these were not")
	say(u.InPart, fmt.Sprintf("read in part, without %s", bytesOf(u.InPart.Bytes)))
	say(u.AtEnd, "not read by the end of the capture")
	if len(words) > 0 {
		f.Text = "These never reached userspace, or not whole: " + strings.Join(words, "; ") + "."
	} else if s.out.Losses.Late == 0 {
		f.Text = "All payload reached userspace."
	}
	l := &s.out.Losses
	if l.Queue > u.ByQueue.Packets {
		f.Warning = true
		f.Text += fmt.Sprintf(" The receive queue counted %s that it dropped.", packetsOf(l.Queue))
	}
	if l.Late > 0 {
		f.Text += fmt.Sprintf(" Whose packets are forgotten, since more lies between than is kept: %s.", readsOf(l.Late))
	}
	return f
}

func sentenceStart(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func (o *Socket) sayMapping() Finding {
	f := Finding{Topic: "mapping"}
	m := &o.Mapping
	var words []string
	if m.OneToOne > 0 {
		words = append(words, fmt.Sprintf("%s got one whole packet each", readsOf(m.OneToOne)))
		if m.OneToOne == 1 {
			words[0] = "1 read got one whole packet"
		}
	}
	if m.SeveralPackets > 0 {
		words = append(words, fmt.Sprintf("%s got several packets at once, at most %s", readsOf(m.SeveralPackets), digits(m.Most)))
	}
	if m.PartOfPacket > 0 {
		words = append(words, fmt.Sprintf("%s got a part of one packet", readsOf(m.PartOfPacket)))
	}
	if m.Ends > 0 {
		words = append(words, fmt.Sprintf("%s got the end of a stream", readsOf(m.Ends)))
	}
	if m.Before > 0 {
		words = append(words, fmt.Sprintf("%s got bytes that came before the tap", readsOf(m.Before)))
	}
	if m.Peeks > 0 {
		words = append(words, fmt.Sprintf("%s looked at bytes and left them in the queue (MSG_PEEK)", callsOf(m.Peeks)))
	}
	f.Text = sentence(strings.Join(words, "; "))
	if m.SplitPackets > 0 {
		f.Text += fmt.Sprintf(" %s fed several reads, at most %s.", sentenceStart(packetsOf(m.SplitPackets)), digits(m.MostReads))
	}
	return f
}

func (s *socket) sayLatency() Finding {
	f := Finding{Topic: "latency"}
	if !s.out.Timed {
		if s.user() && s.out.Packets > 0 {
			f.Text = "There are no real times of what userspace got, so there is no latency to tell."
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
		f.Text += fmt.Sprintf(" %s came before their packets and are not counted.", sentenceStart(readsOf(l.Negative)))
	}
	return f
}

func (s *socket) sayTap() Finding {
	f := Finding{Topic: "tap"}
	v := s.views[capture.ViewKernel]
	if v == nil {
		return f
	}
	switch lost, ledger := s.out.Losses.Tap, v.out.Statistics; {
	case lost > 0:
		f.Warning = true
		f.Text = fmt.Sprintf("The tap lost %s: what userspace got of them cannot be compared.", packetsOf(lost))
	case ledger != nil:
		f.Text = fmt.Sprintf("The tap lost nothing: what the filter saw is all in the file (%s).", packetsOf(ledger.Received))
	default:
		f.Text = "The file has no statistics at its end, so losses of the tap after its last packet are not known."
	}
	if v.out.Cut > 0 {
		f.Text += fmt.Sprintf(" Not in the file whole: %s of the kernel view.", packetsOf(v.out.Cut))
	}
	return f
}
