package expression

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// errNoRelation says that what comes is none.
var errNoRelation = errors.New("no relation")

// number is an arithmetic expression.
type number struct {
	constant bool
	value    uint32
	// code leaves the number in A. It may use X, and the words of memory from word on.
	code []unix.SockFilter
	// needs is what must be true of a packet that has the bytes.
	needs node
}

var jumps = map[string]struct {
	jump   uint16
	turned bool
}{
	"=": {unix.BPF_JEQ, false}, "==": {unix.BPF_JEQ, false}, "!=": {unix.BPF_JEQ, true},
	">": {unix.BPF_JGT, false}, "<=": {unix.BPF_JGT, true}, ">=": {unix.BPF_JGE, false}, "<": {unix.BPF_JGE, true},
}

// relation parses the comparison of two numbers. It fails with errNoRelation if there is none, and
// otherwise if there is a wrong one.
func (p *parser) relation() (node, error) {
	if !p.beginsNumber() {
		return nil, errNoRelation
	}
	p.words = 0
	left, err := p.number(0)
	if err != nil {
		return nil, err
	}
	t := p.peek()
	how, ok := jumps[t.text]
	if t.kind != tokenSign || !ok {
		if len(left.code) > 0 {
			return nil, p.wrong(t, "a number is compared with another one, by =, !=, <, <=, > or >=: %s cannot stand here", t.name())
		}
		return nil, errNoRelation
	}
	p.take()
	if !p.beginsNumber() {
		t := p.peek()
		return nil, p.wrong(t, "a number is missing before %s", t.name())
	}
	right, err := p.number(0)
	if err != nil {
		return nil, err
	}
	c := compare{jump: how.jump}
	if right.constant {
		c.load, c.value = left.loaded(), right.value
	} else {
		word, err := p.memory(t)
		if err != nil {
			return nil, err
		}
		c.load = slices.Concat(right.loaded(), []unix.SockFilter{{Code: unix.BPF_ST, K: word}}, left.loaded(),
			[]unix.SockFilter{{Code: unix.BPF_LDX | unix.BPF_MEM, K: word}})
		c.withX = true
	}
	n := node(c)
	if how.turned {
		n = not(n)
	}
	return and(and(left.needs, right.needs), n), nil
}

// beginsNumber tells whether a number may come next.
func (p *parser) beginsNumber() bool {
	t := p.peek()
	switch {
	case t.kind == tokenNumber, t.kind == tokenSign && (t.text == "(" || t.text == "-"):
		return true
	case t.kind != tokenWord:
		return false
	case t.text == "len" || t.text == "length" || isConstant(t.text):
		return true
	}
	next := p.tokens[min(p.at+1, len(p.tokens)-1)]
	return next.kind == tokenSign && next.text == "["
}

func (n number) loaded() []unix.SockFilter {
	if n.constant {
		return []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_IMM, K: n.value}}
	}
	return n.code
}

// memory reserves a word of memory.
func (p *parser) memory(t token) (uint32, error) {
	if p.words == 16 {
		return 0, p.wrong(t, "the calculation is too long: a filter in the kernel has room for 16 numbers")
	}
	p.words++
	return uint32(p.words - 1), nil
}

// operators by their precedence, the lowest first.
var operators = []map[string]uint16{
	{"|": unix.BPF_OR, "&": unix.BPF_AND, "^": unix.BPF_XOR},
	{"<<": unix.BPF_LSH, ">>": unix.BPF_RSH},
	{"+": unix.BPF_ADD, "-": unix.BPF_SUB},
	{"*": unix.BPF_MUL, "/": unix.BPF_DIV, "%": unix.BPF_MOD},
}

// number parses operators of a precedence and above.
func (p *parser) number(precedence int) (number, error) {
	if precedence == len(operators) {
		return p.operand()
	}
	left, err := p.number(precedence + 1)
	for err == nil {
		t := p.peek()
		op, ok := operators[precedence][t.text]
		if t.kind != tokenSign || !ok {
			return left, nil
		}
		p.take()
		if !p.beginsNumber() {
			next := p.peek()
			return left, p.wrong(next, "a number is missing before %s", next.name())
		}
		var right number
		if right, err = p.number(precedence + 1); err == nil {
			left, err = p.calculation(t, op, left, right)
		}
	}
	return left, err
}

// calculation joins two numbers.
func (p *parser) calculation(t token, op uint16, left, right number) (number, error) {
	if right.constant {
		switch {
		case (op == unix.BPF_DIV || op == unix.BPF_MOD) && right.value == 0:
			return left, p.wrong(t, "division by zero")
		case (op == unix.BPF_LSH || op == unix.BPF_RSH) && right.value > 31:
			return left, p.wrong(t, "a shift by more than 31 bits")
		}
	}
	if left.constant && right.constant {
		value, _ := calculate(unix.BPF_ALU|op, left.value, right.value)
		return number{constant: true, value: value, needs: always(true)}, nil
	}
	n := number{needs: and(left.needs, right.needs)}
	if right.constant {
		n.code = append(slices.Clone(left.code), unix.SockFilter{Code: unix.BPF_ALU | op | unix.BPF_K, K: right.value})
		return n, nil
	}
	word, err := p.memory(t)
	if err != nil {
		return left, err
	}
	n.code = slices.Concat(right.code, []unix.SockFilter{{Code: unix.BPF_ST, K: word}}, left.loaded(),
		[]unix.SockFilter{{Code: unix.BPF_LDX | unix.BPF_MEM, K: word}, {Code: unix.BPF_ALU | op | unix.BPF_X}})
	return n, nil
}

// operand parses a number without operators.
func (p *parser) operand() (number, error) {
	if p.depth++; p.depth > depthLimit {
		return number{}, p.wrong(p.peek(), "brackets are nested more than %d deep", depthLimit)
	}
	defer func() { p.depth-- }()
	t := p.take()
	switch {
	case t.kind == tokenNumber:
		return number{constant: true, value: t.value, needs: always(true)}, nil
	case t.kind == tokenSign && t.text == "-":
		n, err := p.operand()
		if n.constant {
			n.value = -n.value
		} else {
			n.code = append(slices.Clone(n.code), unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_NEG})
		}
		return n, err
	case t.kind == tokenSign && t.text == "(":
		if !p.beginsNumber() {
			return number{}, errNoRelation
		}
		n, err := p.number(0)
		if err == nil && !p.accept(")") {
			return n, errNoRelation
		}
		return n, err
	case t.kind == tokenWord && (t.text == "len" || t.text == "length"):
		return number{code: []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_LEN}}, needs: always(true)}, nil
	case t.kind == tokenWord && isConstant(t.text):
		return number{constant: true, value: constants[t.text], needs: always(true)}, nil
	}
	if p.accept("[") {
		return p.bytes(t)
	}
	return number{}, errNoRelation
}

// bytes parses an offset and a size behind a protocol's name.
func (p *parser) bytes(proto token) (number, error) {
	switch {
	case slices.Contains(linkWords, proto.text):
		return number{}, p.wrong(proto, "%q is about the link layer: packets are recorded from the IP header on", proto.text)
	case !isProtocolWord(proto.text):
		return number{}, p.wrong(proto, "%s is no protocol whose bytes can be looked at: ip, ip6, tcp, udp, icmp, icmp6 and others are", proto.name())
	case proto.text == "ah" || proto.text == "esp":
		return number{}, p.wrong(proto, "bytes of %s cannot be looked at", proto.text)
	}
	if !p.beginsNumber() {
		t := p.peek()
		return number{}, p.wrong(t, "an offset is missing before %s", t.name())
	}
	index, err := p.number(0)
	if err != nil {
		return index, p.orWrong(err)
	}
	size := uint16(unix.BPF_B)
	if p.accept(":") {
		t := p.take()
		sizes := map[uint32]uint16{1: unix.BPF_B, 2: unix.BPF_H, 4: unix.BPF_W}
		var ok bool
		if size, ok = sizes[t.value]; t.kind != tokenNumber || !ok {
			return index, p.wrong(t, "1, 2 or 4 bytes can be looked at, not %s", t.name())
		}
	}
	if t := p.peek(); !p.accept("]") {
		return index, p.wrong(t, "a closing ] is missing before %s", t.name())
	}
	return p.access(proto, index, size)
}

// orWrong makes an error of errNoRelation, where nothing else can stand.
func (p *parser) orWrong(err error) error {
	if errors.Is(err, errNoRelation) {
		t := p.peek()
		return p.wrong(t, "a number is missing before %s", t.name())
	}
	return err
}

// access loads bytes of a header. Those of a transport header are found behind IPv4 only, but for ICMPv6.
func (p *parser) access(proto token, index number, size uint16) (number, error) {
	n := number{needs: and(index.needs, named(proto.text))}
	base := uint32(0)
	switch proto.text {
	case "ip", "ip6":
	case "icmp6":
		n.needs = and(index.needs, and(isIPv6, is(loadByte, 6, unix.IPPROTO_ICMPV6)))
		base = 40
	default:
		n.needs = and(index.needs, and(isIPv4, and(is(loadByte, 9, uint32(protocols[proto.text].number)), not(isLater))))
		if index.constant {
			n.code = []unix.SockFilter{headerLength, {Code: unix.BPF_LD | unix.BPF_IND | size, K: index.value}}
			return n, nil
		}
		word, err := p.memory(proto)
		if err != nil {
			return n, err
		}
		n.code = slices.Concat(index.code, []unix.SockFilter{
			{Code: unix.BPF_ST, K: word}, headerLength, {Code: unix.BPF_LD | unix.BPF_MEM, K: word},
			{Code: unix.BPF_ALU | unix.BPF_ADD | unix.BPF_X}, {Code: unix.BPF_MISC | unix.BPF_TAX}, {Code: unix.BPF_LD | unix.BPF_IND | size},
		})
		return n, nil
	}
	if index.constant {
		n.code = []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_ABS | size, K: base + index.value}}
		if base+index.value >= 0xfff00000 {
			return n, p.wrong(proto, "no packet is so long")
		}
		return n, nil
	}
	n.code = append(slices.Clone(index.code), unix.SockFilter{Code: unix.BPF_MISC | unix.BPF_TAX}, unix.SockFilter{Code: unix.BPF_LD | unix.BPF_IND | size, K: base})
	return n, nil
}

func isConstant(word string) bool {
	_, known := constants[word]
	return known
}

// constants are names of offsets, types and flags.
var constants = map[string]uint32{
	"icmptype": 0, "icmpcode": 1, "icmp6type": 0, "icmp6code": 1, "tcpflags": 13,
	"tcp-fin": 1, "tcp-syn": 2, "tcp-rst": 4, "tcp-push": 8, "tcp-ack": 16, "tcp-urg": 32, "tcp-ece": 64, "tcp-cwr": 128,
	"icmp-echoreply": 0, "icmp-unreach": 3, "icmp-sourcequench": 4, "icmp-redirect": 5, "icmp-echo": 8, "icmp-routeradvert": 9,
	"icmp-routersolicit": 10, "icmp-timxceed": 11, "icmp-paramprob": 12, "icmp-tstamp": 13, "icmp-tstampreply": 14, "icmp-ireq": 15,
	"icmp-ireqreply": 16, "icmp-maskreq": 17, "icmp-maskreply": 18,
	"icmp6-destinationunreach": 1, "icmp6-packettoobig": 2, "icmp6-timeexceeded": 3, "icmp6-parameterproblem": 4, "icmp6-echo": 128,
	"icmp6-echoreply": 129, "icmp6-multicastlistenerquery": 130, "icmp6-multicastlistenerreportv1": 131, "icmp6-multicastlistenerdone": 132,
	"icmp6-routersolicit": 133, "icmp6-routeradvert": 134, "icmp6-neighborsolicit": 135, "icmp6-neighboradvert": 136, "icmp6-redirect": 137,
	"icmp6-routerrenum": 138, "icmp6-nodeinformationquery": 139, "icmp6-nodeinformationresponse": 140,
	"icmp6-ineighbordiscoverysolicit": 141, "icmp6-ineighbordiscoveryadvert": 142, "icmp6-multicastlistenerreportv2": 143,
	"icmp6-homeagentdiscoveryrequest": 144, "icmp6-homeagentdiscoveryreply": 145, "icmp6-mobileprefixsolicit": 146,
	"icmp6-mobileprefixadvert": 147, "icmp6-certpathsolicit": 148, "icmp6-certpathadvert": 149,
	"icmp6-multicastrouteradvert": 151, "icmp6-multicastroutersolicit": 152, "icmp6-multicastrouterterm": 153,
}
