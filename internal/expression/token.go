package expression

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Error is what is wrong with an expression, and where.
type Error struct {
	// Text is the expression.
	Text string
	// At and End are the place, in bytes of Text.
	At, End int
	// What is wrong, as a clause.
	What string
	// Unknown says that a condition begins with a word that the language does not have.
	Unknown bool
}

func (e *Error) Error() string { return e.What }

type tokenKind uint8

const (
	tokenEnd    tokenKind = iota
	tokenWord             // a keyword or a name
	tokenName             // a name that is no keyword: it was escaped by a backslash
	tokenNumber           // also in value
	tokenDotted           // an IPv4 address or the beginning of one: 10.1
	tokenIPv6
	tokenLink // an Ethernet address
	tokenSign // an operator or bracket
)

type token struct {
	kind    tokenKind
	text    string
	value   uint32
	at, end int
}

// signs are longer ones first.
var signs = []string{"&&", "||", "==", "!=", "<=", ">=", "<<", ">>", "(", ")", "[", "]", ":", "=", "<", ">", "!", "+", "-", "*", "/", "%", "&", "|", "^"}

func isWordByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '.' || c == '-'
}

// scan takes an expression apart. The last token is tokenEnd.
func scan(text string) ([]token, error) {
	var all []token
	for at := 0; at < len(text); {
		if c := text[at]; c == ' ' || c == '\t' || c == '\n' || c == '\r' {
			at++
			continue
		}
		next, err := scanOne(text, at)
		if err != nil {
			return nil, err
		}
		all = append(all, next)
		at = next.end
	}
	return append(all, token{kind: tokenEnd, at: len(text), end: len(text)}), nil
}

func scanOne(text string, at int) (token, error) {
	t := token{at: at, end: at}
	if address, ok := scanAddress(text, at); ok {
		return address, nil
	}
	escaped := text[at] == '\\'
	if escaped {
		at++
	}
	end := at
	for end < len(text) && isWordByte(text[end]) {
		end++
	}
	// Neither begins nor ends with a hyphen: that is an operator.
	for end > at && (text[end-1] == '-' || text[end-1] == '_') {
		end--
	}
	if end > at && text[at] != '-' && text[at] != '_' && text[at] != '.' {
		t.text, t.end = text[at:end], end
		t.classify(escaped)
		return t, nil
	}
	for _, sign := range signs {
		if !escaped && strings.HasPrefix(text[t.at:], sign) {
			t.kind, t.text, t.end = tokenSign, sign, t.at+len(sign)
			return t, nil
		}
	}
	_, size := utf8.DecodeRuneInString(text[t.at:])
	return t, &Error{Text: text, At: t.at, End: t.at + size, What: fmt.Sprintf("%q has no meaning here", text[t.at:t.at+size])}
}

// scanAddress recognizes what has colons: an IPv6 or an Ethernet address.
func scanAddress(text string, at int) (token, bool) {
	end := at
	for end < len(text) && (isHex(text[end]) || text[end] == ':' || text[end] == '.') {
		end++
	}
	t := token{text: text[at:end], at: at, end: end}
	if end < len(text) && isWordByte(text[end]) || strings.Count(t.text, ":") < 2 {
		return t, false
	}
	if address, err := netip.ParseAddr(t.text); err == nil && address.Is6() {
		t.kind = tokenIPv6
		return t, true
	}
	t.kind = tokenLink
	return t, strings.Count(t.text, ":") == 5
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// classify finds what kind of word it is.
func (t *token) classify(escaped bool) {
	t.kind = tokenWord
	if escaped {
		t.kind = tokenName
		return
	}
	if t.text[0] < '0' || t.text[0] > '9' {
		return
	}
	if value, err := strconv.ParseUint(t.text, 0, 32); err == nil && !strings.ContainsAny(t.text, "_oObB") {
		t.kind, t.value = tokenNumber, uint32(value)
		return
	}
	if strings.Trim(t.text, "0123456789.") == "" {
		t.kind = tokenDotted
	}
}
