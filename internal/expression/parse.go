package expression

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Resolver finds what names mean.
type Resolver interface {
	// Host returns the addresses of a host.
	Host(name string) ([]netip.Addr, error)
	// Port returns the number of a service, for "tcp" or "udp", and 0 if it has none.
	Port(network, name string) int
	// Protocol returns the number of an IP protocol.
	Protocol(name string) (uint8, bool)
}

// MaxLength is how many bytes an expression may have.
const MaxLength = 64 << 10

// depthLimit bounds how deep brackets may be nested.
const depthLimit = 100

// Compile compiles an expression. An *Error says what is wrong with it, and where. One that
// is empty wants everything.
func Compile(text string, names Resolver) (Program, error) {
	if len(text) > MaxLength {
		return nil, &Error{Text: text[:40], What: fmt.Sprintf("an expression has at most %d bytes", MaxLength)}
	}
	tokens, err := scan(text)
	if err != nil {
		return nil, err
	}
	p := &parser{text: text, tokens: tokens, names: names}
	var n node = always(true)
	if p.peek().kind != tokenEnd {
		if n, err = p.expression(); err != nil {
			return nil, err
		}
	}
	if t := p.peek(); t.kind != tokenEnd {
		return nil, p.wrong(t, "%s cannot stand here: join conditions by and, or", t.name())
	}
	program, err := compile(n)
	if err != nil {
		return nil, &Error{Text: text, End: len(text), What: err.Error()}
	}
	return program, nil
}

type parser struct {
	text   string
	tokens []token
	at     int
	names  Resolver
	last   *qualifiers // of the primitive before, for values that have none
	depth  int
	words  int // of memory that are in use
}

func (p *parser) peek() token { return p.tokens[p.at] }

func (p *parser) take() token {
	t := p.tokens[p.at]
	if t.kind != tokenEnd {
		p.at++
	}
	return t
}

// accept takes a keyword or a sign if it is next.
func (p *parser) accept(texts ...string) bool {
	t := p.peek()
	if (t.kind == tokenWord || t.kind == tokenSign) && slices.Contains(texts, t.text) {
		p.at++
		return true
	}
	return false
}

func (p *parser) wrong(t token, format string, args ...any) error {
	return &Error{Text: p.text, At: t.at, End: t.end, What: fmt.Sprintf(format, args...)}
}

// name is a token in a sentence.
func (t token) name() string {
	if t.kind == tokenEnd {
		return "the end"
	}
	return fmt.Sprintf("%q", t.text)
}

// expression parses conditions that are joined: and and or have the same precedence.
func (p *parser) expression() (node, error) {
	if p.depth++; p.depth > depthLimit {
		return nil, p.wrong(p.peek(), "brackets are nested more than %d deep", depthLimit)
	}
	defer func() { p.depth-- }()
	n, err := p.term()
	for err == nil {
		join := or
		switch {
		case p.accept("and", "&&"):
			join = and
		case p.accept("or", "||"):
		default:
			return n, nil
		}
		var next node
		if next, err = p.term(); err == nil {
			n = join(n, next)
		}
	}
	return nil, err
}

func (p *parser) term() (node, error) {
	turned := false
	for p.accept("not", "!") {
		turned = !turned
	}
	n, err := p.primitive()
	if err == nil && turned {
		n = not(n)
	}
	return n, err
}

// primitive parses a relation, a bracket, or what is no longer than a few words.
func (p *parser) primitive() (node, error) {
	began := p.at
	n, relationErr := p.relation()
	if relationErr == nil {
		return n, nil
	}
	farthest := p.at
	isRelation := errors.As(relationErr, new(*Error))
	p.at = began
	if p.accept("(") {
		n, err := p.expression()
		if err == nil && !p.accept(")") {
			t := p.peek()
			err = p.wrong(t, "a closing bracket is missing before %s", t.name())
		}
		if err != nil && isRelation && farthest > p.at {
			return nil, relationErr
		}
		return n, err
	}
	if isRelation {
		return nil, relationErr
	}
	if p.isValue(p.peek()) {
		if p.last == nil {
			t := p.peek()
			if t.kind == tokenWord || t.kind == tokenName {
				what := fmt.Sprintf("%s is no word of the language: is it a host, a port, a net? Say host %s", t.name(), t.text)
				return nil, &Error{Text: p.text, At: t.at, End: t.end, What: what, Unknown: true}
			}
			return nil, p.wrong(t, "what is %s? Say host, net, port or proto before it", t.name())
		}
		return p.value(*p.last)
	}
	return p.qualified()
}

// qualifiers are the words before a value.
type qualifiers struct {
	proto     string // "", ip, ip6, tcp, ...
	direction direction
	kind      string // host, net, port, portrange, proto
	at        token
}

type direction uint8

const (
	either direction = iota
	source
	destination
	both
)

// keywords are the words that are no names.
var keywords = func() map[string]bool {
	all := make(map[string]bool)
	for _, list := range []string{
		"and or not src dst host net port portrange proto protochain gateway mask less greater len length broadcast multicast inbound outbound",
		"ip ip6 tcp udp icmp icmp6 sctp igmp igrp pim vrrp carp ah esp",
		strings.Join(linkWords, " "),
	} {
		for word := range strings.FieldsSeq(list) {
			all[word] = true
		}
	}
	return all
}()

// linkWords begin primitives about what comes before the IP header, or is no IP.
var linkWords = strings.Fields("ether link fddi tr wlan arp rarp vlan mpls pppoed pppoes geneve vxlan llc type subtype dir direction decnet atalk aarp iso clnp esis isis stp ipx netbeui lat moprc mopdl sca " +
	"l1 l2 iih lsp snp csnp psnp lane oam metac bcc sc ilmic vpi vci connectmsg addr1 addr2 addr3 addr4 ra ta radio slip ppp byte")

// firewallWords begin primitives about the log of BSD's firewall.
var firewallWords = strings.Fields("ifname on ifindex rnr rulenum reason rset ruleset srnr subrulenum action")

// isValue tells whether a token is a value and no keyword.
func (p *parser) isValue(t token) bool {
	switch t.kind {
	case tokenWord:
		return !keywords[t.text] && (t.text != "ifname" && t.text != "on" && t.text != "rnr" && t.text != "action" && t.text != "reason" || p.last != nil)
	case tokenName, tokenNumber, tokenDotted, tokenIPv6, tokenLink:
		return true
	}
	return false
}

// protocols are the words of IP protocols; those of IPv4 or IPv6 alone say so.
var protocols = map[string]struct {
	number  uint8
	version int
}{
	"tcp": {6, 0}, "udp": {17, 0}, "sctp": {132, 0}, "ah": {51, 0}, "esp": {50, 0}, "pim": {103, 0},
	"icmp": {1, 4}, "igmp": {2, 4}, "igrp": {9, 4}, "vrrp": {112, 4}, "carp": {112, 4}, "icmp6": {58, 6},
}

// isProtocol is the condition that a packet is of an IP protocol. That of a first header behind a
// fragment header counts, that behind other extension headers does not.
func isProtocol(number uint8, version int) node {
	ipv4 := and(isIPv4, is(loadByte, 9, uint32(number)))
	ipv6 := and(isIPv6, or(is(loadByte, 6, uint32(number)), and(is(loadByte, 6, unix.IPPROTO_FRAGMENT), is(loadByte, 40, uint32(number)))))
	switch version {
	case 4:
		return ipv4
	case 6:
		return ipv6
	}
	return or(ipv4, ipv6)
}

// named is the condition that a packet is of what a word names.
func named(word string) node {
	switch word {
	case "ip":
		return isIPv4
	case "ip6":
		return isIPv6
	}
	return isProtocol(protocols[word].number, protocols[word].version)
}

func isProtocolWord(word string) bool {
	_, known := protocols[word]
	return known || word == "ip" || word == "ip6"
}

// qualified parses a primitive that begins with a keyword.
func (p *parser) qualified() (node, error) {
	t := p.take()
	word := t.text
	switch {
	case t.kind == tokenEnd && len(p.tokens) > 1:
		return nil, p.wrong(t, "a condition is missing at the end")
	case t.kind != tokenWord:
		return nil, p.wrong(t, "a condition cannot begin with %s", t.name())
	case slices.Contains(linkWords, word):
		return nil, p.wrong(t, "%q is about the link layer: packets are recorded from the IP header on, for all interfaces at once", word)
	case word == "inbound" || word == "outbound":
		return nil, p.wrong(t, "%q: which way a packet goes is said by src and dst", word)
	case slices.Contains(firewallWords, word):
		return nil, p.wrong(t, "%q is about the log of another system's firewall", word)
	case word == "broadcast" || word == "multicast":
		return nil, p.wrong(t, "%q alone is about the link layer: say ip multicast or ip6 multicast", word)
	case word == "gateway":
		return nil, p.wrong(t, "gateway compares link addresses, which are not there")
	case word == "protochain":
		return nil, p.wrong(t, "protochain needs a loop, which a filter in the kernel cannot have: say proto")
	case word == "less" || word == "greater":
		return p.length(word)
	}
	q := qualifiers{at: t}
	if isProtocolWord(word) {
		q.proto = word
		if n, done, err := p.afterProtocol(word); done {
			return n, err
		}
	} else {
		p.at--
	}
	if err := p.ways(&q); err != nil {
		return nil, err
	}
	return p.values(q)
}

// length parses less N and greater N, which both contain N.
func (p *parser) length(word string) (node, error) {
	t := p.take()
	if t.kind != tokenNumber {
		return nil, p.wrong(t, "%s needs a number of bytes, not %s", word, t.name())
	}
	load := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_LEN}}
	if word == "less" {
		return not(compare{load: load, jump: unix.BPF_JGT, value: t.value}), nil
	}
	return compare{load: load, jump: unix.BPF_JGE, value: t.value}, nil
}

// afterProtocol parses what is done after a protocol's name: the name by itself, or ip multicast.
func (p *parser) afterProtocol(word string) (n node, done bool, err error) {
	t := p.peek()
	switch {
	case t.kind == tokenWord && t.text == "multicast" && word == "ip":
		p.take()
		return and(isIPv4, compare{load: []unix.SockFilter{{Code: loadByte, K: 16}}, jump: unix.BPF_JGE, value: 224}), true, nil
	case t.kind == tokenWord && t.text == "multicast" && word == "ip6":
		p.take()
		return and(isIPv6, is(loadByte, 24, 255)), true, nil
	case t.kind == tokenWord && t.text == "broadcast":
		return nil, true, p.wrong(t, "broadcast needs the netmask of an interface, and there may be several: say dst host and the address")
	case t.kind == tokenWord && slices.Contains([]string{"protochain", "gateway"}, t.text):
		n, err := p.qualified()
		return n, true, err
	case t.kind == tokenWord && slices.Contains([]string{"src", "dst", "host", "net", "port", "portrange", "proto"}, t.text):
		return nil, false, nil
	case p.isValue(t):
		return nil, true, p.wrong(t, "what is %s? Say %s host, %s port or %s proto before it", t.name(), word, word, word)
	}
	return named(word), true, nil
}

// ways parses the direction and the kind of value.
func (p *parser) ways(q *qualifiers) error {
	first := p.peek()
	switch {
	case p.accept("src"):
		q.direction = source
	case p.accept("dst"):
		q.direction = destination
	}
	if q.direction != either {
		here := p.at
		join := p.peek().text
		if p.accept("or", "and", "||", "&&") && (first.text == "src" && p.accept("dst") || first.text == "dst" && p.accept("src")) {
			if q.direction = either; join == "and" || join == "&&" {
				q.direction = both
			}
		} else {
			p.at = here
		}
	}
	t := p.peek()
	switch {
	case p.accept("host", "net", "port", "portrange", "proto"):
		q.kind = t.text
	case p.accept("gateway", "protochain"):
		return p.wrong(t, "%s is not there for packets that begin with the IP header", t.text)
	case q.at.text == t.text && first.text == t.text:
		p.take()
		return p.wrong(t, "%s cannot begin a condition", t.name())
	default:
		q.kind = "host"
	}
	if q.kind == "proto" && first.text != "proto" {
		return p.wrong(first, "a protocol has no direction")
	}
	return q.fits(p)
}

// fits refuses qualifiers that contradict each other.
func (q *qualifiers) fits(p *parser) error {
	end := p.tokens[p.at-1]
	at := token{at: q.at.at, end: end.end}
	transport := q.proto == "tcp" || q.proto == "udp" || q.proto == "sctp"
	switch q.kind {
	case "host", "net":
		if q.proto != "" && q.proto != "ip" && q.proto != "ip6" {
			return p.wrong(at, "%s has no %s: say %s and %s", q.proto, q.kind, q.proto, q.kind)
		}
	case "port", "portrange":
		if q.proto != "" && !transport {
			return p.wrong(at, "%s has no ports: say %s and %s", q.proto, q.proto, q.kind)
		}
	case "proto":
		if q.proto != "" && q.proto != "ip" && q.proto != "ip6" {
			return p.wrong(at, "proto is of ip or ip6, not of %s", q.proto)
		}
	}
	return nil
}

// values parses the values behind qualifiers: one, or several in brackets.
func (p *parser) values(q qualifiers) (node, error) {
	turned := false
	for p.accept("not", "!") {
		turned = !turned
	}
	var n node
	var err error
	if p.accept("(") {
		n, err = p.list(q)
	} else {
		n, err = p.value(q)
	}
	if err == nil && turned {
		n = not(n)
	}
	p.last = &q
	return n, err
}

// list parses values that are joined, up to the closing bracket.
func (p *parser) list(q qualifiers) (node, error) {
	if p.depth++; p.depth > depthLimit {
		return nil, p.wrong(p.peek(), "brackets are nested more than %d deep", depthLimit)
	}
	defer func() { p.depth-- }()
	n, err := p.values(q)
	for err == nil {
		join := or
		switch {
		case p.accept("and", "&&"):
			join = and
		case p.accept("or", "||"):
		case p.accept(")"):
			return n, nil
		default:
			t := p.peek()
			return nil, p.wrong(t, "a closing bracket is missing before %s", t.name())
		}
		var next node
		if next, err = p.values(q); err == nil {
			n = join(n, next)
		}
	}
	return nil, err
}
