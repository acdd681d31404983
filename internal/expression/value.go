package expression

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// value parses a value, for qualifiers.
func (p *parser) value(q qualifiers) (node, error) {
	t := p.take()
	// After a kind, also a keyword is a value: port tcp, proto udp.
	if !p.isValue(t) && (t.kind != tokenWord || q.kind != "proto" || !isProtocolWord(t.text)) {
		return nil, p.wrong(t, "%s needs a value, not %s", q.kind, t.name())
	}
	if t.kind == tokenLink {
		return nil, p.wrong(t, "%s is an address of the link layer: packets are recorded from the IP header on", t.text)
	}
	switch q.kind {
	case "port", "portrange":
		low, high, err := p.ports(t, &q)
		if err != nil {
			return nil, err
		}
		return q.ports(low, high), nil
	case "proto":
		number, err := p.protocol(t)
		if err != nil {
			return nil, err
		}
		return isProtocol(number, map[string]int{"ip": 4, "ip6": 6}[q.proto]), nil
	}
	return p.address(t, q)
}

// protocol is the number of an IP protocol.
func (p *parser) protocol(t token) (uint8, error) {
	if t.kind == tokenNumber {
		if t.value > 255 {
			return 0, p.wrong(t, "protocols have numbers from 0 to 255")
		}
		return uint8(t.value), nil
	}
	if known, ok := protocols[t.text]; ok {
		return known.number, nil
	}
	number, ok := p.names.Protocol(t.text)
	if !ok {
		return 0, p.wrong(t, "there is no IP protocol %s: give its number", t.name())
	}
	return number, nil
}

// ports is the range of ports that a token means. A service of one protocol only chooses that one.
func (p *parser) ports(t token, q *qualifiers) (low, high uint16, err error) {
	if first, last, ok := strings.Cut(t.text, "-"); ok && q.kind == "portrange" {
		if low, err = p.port(t, first, q); err == nil {
			high, err = p.port(t, last, q)
		}
		return min(low, high), max(low, high), err
	}
	low, err = p.port(t, t.text, q)
	return low, low, err
}

func (p *parser) port(t token, text string, q *qualifiers) (uint16, error) {
	if n, err := strconv.ParseUint(text, 0, 32); err == nil {
		if n > 65535 {
			return 0, p.wrong(t, "ports have numbers from 0 to 65535")
		}
		return uint16(n), nil
	}
	tcp, udp := p.names.Port("tcp", text), p.names.Port("udp", text)
	switch {
	case q.proto == "tcp":
		udp = 0
	case q.proto == "udp":
		tcp = 0
	case q.proto == "" && tcp == 0 && udp != 0:
		q.proto = "udp"
	case q.proto == "" && tcp != 0 && udp != tcp:
		q.proto = "tcp"
	}
	if tcp == 0 && udp == 0 {
		return 0, p.wrong(t, "%s has no service %q: give the number of the port", orAny(q.proto), text)
	}
	return uint16(cmp.Or(tcp, udp)), nil
}

func orAny(proto string) string {
	if proto == "" {
		return "this machine"
	}
	return proto
}

// way is a condition on the source, the destination, or both.
func (d direction) way(at func(destination uint32) node) node {
	switch d {
	case source:
		return at(0)
	case destination:
		return at(1)
	case both:
		return and(at(0), at(1))
	}
	return or(at(0), at(1))
}

// ports is the condition that a port is in a range. Fragments but the first have none, and over IPv6
// only a transport header that follows at once is looked at.
func (q qualifiers) ports(low, high uint16) node {
	transports := func(offset uint32) (n node) {
		for _, word := range []string{"tcp", "udp", "sctp"} {
			if q.proto == "" || q.proto == word {
				n = or(n, is(loadByte, offset, uint32(protocols[word].number)))
			}
		}
		return n
	}
	within := func(load []unix.SockFilter) node {
		if low == high {
			return compare{load: load, jump: unix.BPF_JEQ, value: uint32(low)}
		}
		return and(compare{load: load, jump: unix.BPF_JGE, value: uint32(low)}, not(compare{load: load, jump: unix.BPF_JGT, value: uint32(high)}))
	}
	ipv4 := q.direction.way(func(destination uint32) node {
		return within([]unix.SockFilter{headerLength, {Code: loadHalf ^ behind, K: 2 * destination}})
	})
	ipv6 := q.direction.way(func(destination uint32) node {
		return within([]unix.SockFilter{{Code: loadHalf, K: 40 + 2*destination}})
	})
	return or(
		and(isIPv4, and(transports(9), and(not(isLater), ipv4))),
		and(isIPv6, and(transports(6), ipv6)),
	)
}

// address is the condition that a host or a net is at an end of a packet.
func (p *parser) address(t token, q qualifiers) (node, error) {
	switch t.kind {
	case tokenNumber, tokenDotted:
		return p.ipv4(t, q)
	case tokenIPv6:
		return p.ipv6(t, q)
	}
	if q.kind == "net" {
		return nil, p.wrong(t, "a net is an address with a length, such as 192.168.0.0/16, not %s", t.name())
	}
	addresses, err := p.names.Host(t.text)
	if err != nil {
		return nil, p.wrong(t, "there is no host %s: %v", t.name(), err)
	}
	var n node
	for _, address := range addresses {
		address = address.Unmap()
		switch {
		case address.Is4() && q.proto != "ip6":
			bytes := address.As4()
			n = or(n, q.ipv4(binary.BigEndian.Uint32(bytes[:]), 0xffffffff))
		case address.Is6() && q.proto != "ip":
			n = or(n, q.ipv6(address, 128))
		}
	}
	if n == nil {
		return nil, p.wrong(t, "host %s has no address of %s", t.name(), q.proto)
	}
	return n, nil
}

// ipv4 parses an address of one to four numbers, and what follows a net.
func (p *parser) ipv4(t token, q qualifiers) (node, error) {
	if q.proto == "ip6" {
		return nil, p.wrong(t, "%s is no IPv6 address", t.name())
	}
	address, mask, err := p.dotted(t)
	if err != nil {
		return nil, err
	}
	end := t
	if p.peek().text == "/" || p.peek().text == "mask" {
		given := p.take()
		end = p.take()
		if q.kind != "net" {
			return nil, p.wrong(given, "only a net has a length: say net %s%s%s", t.text, given.text, end.text)
		}
		switch {
		case given.text == "/" && end.kind == tokenNumber && end.value <= 32:
			mask = uint32(uint64(0xffffffff) << (32 - end.value))
		case given.text == "/":
			return nil, p.wrong(end, "the length of an IPv4 net is from 0 to 32, not %s", end.name())
		default:
			if end.kind != tokenDotted && end.kind != tokenNumber {
				return nil, p.wrong(end, "%s needs a mask such as 255.255.0.0, not %s", given.text, end.name())
			}
			if mask, _, err = p.dotted(end); err != nil {
				return nil, err
			}
		}
	}
	if address&^mask != 0 {
		return nil, p.wrong(token{at: t.at, end: end.end}, "%s has bits beyond the length of the net", p.text[t.at:end.end])
	}
	return q.ipv4(address, mask), nil
}

// dotted is an address of one to four numbers, with a mask for those that are there.
func (p *parser) dotted(t token) (address, mask uint32, err error) {
	parts := strings.Split(t.text, ".")
	if t.kind == tokenNumber && t.value > 255 {
		return t.value, 0xffffffff, nil // all of an address as one number
	}
	if len(parts) > 4 {
		return 0, 0, p.wrong(t, "%s has more than four parts", t.name())
	}
	for _, part := range parts {
		n, err := strconv.ParseUint(part, 0, 8)
		if err != nil {
			return 0, 0, p.wrong(t, "%s is no IPv4 address: each part is from 0 to 255", t.name())
		}
		address, mask = address<<8|uint32(n), mask<<8|255
	}
	missing := 8 * (4 - len(parts))
	return address << missing, mask << missing, nil
}

func (q qualifiers) ipv4(address, mask uint32) node {
	return and(isIPv4, q.direction.way(func(destination uint32) node { return masked(loadWord, 12+4*destination, mask, address) }))
}

// ipv6 parses what follows an IPv6 address.
func (p *parser) ipv6(t token, q qualifiers) (node, error) {
	if q.proto == "ip" {
		return nil, p.wrong(t, "%s is no IPv4 address", t.name())
	}
	address, err := netip.ParseAddr(t.text)
	if err != nil {
		return nil, p.wrong(t, "%s is no IPv6 address", t.name())
	}
	length := uint32(128)
	if p.accept("/") {
		end := p.take()
		switch {
		case q.kind != "net":
			return nil, p.wrong(end, "only a net has a length: say net %s/%s", t.text, end.text)
		case end.kind != tokenNumber || end.value > 128:
			return nil, p.wrong(end, "the length of an IPv6 net is from 0 to 128, not %s", end.name())
		}
		if length = end.value; netip.PrefixFrom(address, int(length)).Masked().Addr() != address {
			return nil, p.wrong(token{at: t.at, end: end.end}, "%s has bits beyond the length of the net", p.text[t.at:end.end])
		}
	}
	return q.ipv6(address, length), nil
}

func (q qualifiers) ipv6(address netip.Addr, length uint32) node {
	bytes := address.As16()
	at := func(destination uint32) (n node) {
		n = always(true)
		for word := uint32(0); word < 4 && 32*word < length; word++ {
			mask := uint32(0xffffffff)
			if rest := length - 32*word; rest < 32 {
				mask <<= 32 - rest
			}
			n = and(n, masked(loadWord, 8+16*destination+4*word, mask, binary.BigEndian.Uint32(bytes[4*word:])&mask))
		}
		return n
	}
	return and(isIPv6, q.direction.way(at))
}
