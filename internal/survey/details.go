package survey

import (
	"fmt"
	"strings"
)

// The functions of this file describe what the table has no column for, in a few words;
// empty where there is nothing to say.

// exchangeText lists the packets on the wire, with those that the filter missed in
// brackets.
func (s *Socket) exchangeText() string { return exchangeText(s.Exchange) }

func exchangeText(exchange []Exchanged) string {
	var words []string
	for _, x := range exchange {
		word := x.Packet
		if x.To != "" {
			word += " to " + x.To
		}
		switch x.Filter {
		case "none":
			word = "(" + word + ")"
		case "some":
			word += " (some)"
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

// verdictText describes what happened to the probe when the filter returned keep.
func (s *Socket) verdictText(keep int) string {
	o, ok := s.outcome(keep)
	if !ok {
		return ""
	}
	return o.text()
}

// text describes what became of the probe.
func (o Outcome) text() string {
	text := "nothing"
	if o.Messages > 0 {
		text = fmt.Sprintf("%d x %d bytes", o.Messages, o.Bytes/o.Messages)
	}
	if o.Messages == 1 {
		text = fmt.Sprintf("%d bytes", o.Bytes)
	}
	if o.Probe != "ok" {
		text += "; sender: " + o.Probe
	}
	return text
}

func (s *Socket) emptyText() string {
	switch e := s.Empty; {
	case e == nil:
		return ""
	case e.Filter < 0:
		return "the filter does not run"
	case e.Ended:
		return fmt.Sprintf("filter %d bytes, recvmsg as at the end", e.Filter)
	case e.Messages == 0:
		return fmt.Sprintf("filter %d bytes, userspace nothing", e.Filter)
	default:
		return fmt.Sprintf("filter %d bytes, userspace %d", e.Filter, e.Bytes)
	}
}

func (s *Socket) fragmentsText() string {
	f := s.Fragments
	if f == nil {
		return ""
	}
	return fmt.Sprintf("%d on the wire, filter %d of up to %d bytes, userspace up to %d", f.Wire, f.Filter, f.Longest, f.User)
}

func (s *Socket) largeText() string {
	l := s.Large
	if l == nil {
		return ""
	}
	text := "no segment above the MTU"
	if l.Longer {
		text = "segments above the MTU"
	}
	if len(l.GSOSizes) > 0 {
		text += fmt.Sprintf(", gso_size %s", strings.Trim(fmt.Sprint(l.GSOSizes), "[]"))
	}
	return text
}

// heldText lists the values of a field with the sockets of each: "19 (udp, icmp), 39
// (raw/udp)".
func (r *Report) heldText(field string) string {
	var values []string
	sockets := make(map[string][]string)
	for i := range r.Sockets {
		s := &r.Sockets[i]
		value, ok := s.Held[field]
		if !ok {
			continue
		}
		if sockets[value] == nil {
			values = append(values, value)
		}
		sockets[value] = append(sockets[value], s.Name)
	}
	if len(values) == 1 {
		return values[0] + " everywhere"
	}
	var words []string
	for _, value := range values {
		words = append(words, value+" ("+strings.Join(sockets[value], ", ")+")")
	}
	return strings.Join(words, "; ")
}
