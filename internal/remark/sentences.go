package remark

import (
	"strings"

	"github.com/ebpfdump/ebpfdump/capture"
)

// FactsSize is an upper bound on what AppendFacts adds to a comment besides the name of a
// call: three lists of ids, and the sentences.
const FactsSize = 6144

// HasFacts tells whether a packet's comment has a sentence about its Drop, its Filter, its Verdict, its
// Receipt or its being Truncated.
func HasFacts(p *capture.Packet) bool {
	r, said := &p.Receipt, &p.Reception
	// Most packets have nothing of a Reception that is worth a look: one comparison tells.
	return (said.Flags|said.Segment|uint32(len(said.Controls)) != 0 || said.Cut) && mentionsReception(p) ||
		p.Drop.Reason != "" || p.Filter.Changed || p.Verdict.Dropped || p.Verdict.Of > 0 || p.Verdict.Unasked || p.Truncated || r.Peeked || r.Belied || r.End || r.Errno != 0 ||
		isMissing(r.Missing) || r.BeforeTap > 0 || !r.Fed.Empty() || r.Later || r.QueueDropped > 0 ||
		!r.Packets.Empty() || r.Waiting > 0 || p.Selection.Sockets > 0
}

// AppendFacts appends a packet's comment with the sentences about its facts, but not its
// Meta. The sentences come last, unless the comment has an empty line or sentence for
// them.
func AppendFacts(b []byte, p *capture.Packet) []byte {
	if !HasFacts(p) {
		return append(b, p.Comment...)
	}
	at := place(p.Comment)
	if at < 0 {
		return appendSentences(append(append(b, p.Comment...), between...), p)
	}
	b = appendSentences(append(b, p.Comment[:at]...), p)
	return append(b, p.Comment[at:]...)
}

// place is the offset at which our sentences belong in a comment of others: where a line
// or sentence is empty. It is -1 for the end.
func place(comment string) int {
	for at := 0; ; {
		end := at + sentenceEnd(comment[at:])
		if end == at && (end < len(comment) || at == 0 || comment[at-1] == '\n') {
			return at
		}
		if end == len(comment) {
			return -1
		}
		at = end + separator(comment[end:])
	}
}

func appendSentences(b []byte, p *capture.Packet) []byte {
	empty := len(b)
	for _, facts := range [...][]fact{selectFacts[:1], kernelFacts, userFacts} {
		for i := range facts {
			if !facts[i].holds(p) {
				continue
			}
			if len(b) > empty {
				b = append(b, between...)
			}
			b = facts[i].say(b, p)
		}
	}
	return b
}

// Facts returns what AppendFacts appends.
func Facts(p *capture.Packet) string {
	if !HasFacts(p) {
		return p.Comment
	}
	return string(AppendFacts(nil, p))
}

// CutFacts moves the sentences of AppendFacts from the comment of a packet read from a
// file into its fields. All other fields must be set. What others wrote into the comment
// stays, with an empty line or sentence where ours was, so that AppendFacts makes the
// same comment again.
func CutFacts(p *capture.Packet) {
	facts := kernelFacts
	switch p.Interface.View {
	case 0:
		return
	case capture.ViewUser, capture.ViewSent:
		facts = userFacts
	case capture.ViewSelect:
		facts = selectFacts
	}
	comment := p.Comment
	for at := 0; at < len(comment); {
		if n := readSentences(comment[at:], p, facts); n > 0 {
			p.Comment = without(comment, at, at+n)
			return
		}
		at += sentenceEnd(comment[at:])
		at += separator(comment[at:])
	}
}

// readSentences parses the sentences at the start of a text, in the order of the facts,
// and returns their size.
func readSentences(text string, p *capture.Packet, facts []fact) (n int) {
	for at := 0; ; {
		end := at + sentenceEnd(text[at:])
		for len(facts) > 0 && !facts[0].read(text[at:end], p) {
			facts = facts[1:]
		}
		if len(facts) == 0 {
			return n
		}
		n, facts = end, facts[1:]
		if !strings.HasPrefix(text[end:], between) {
			return n
		}
		at = end + len(between)
	}
}

// sentenceEnd is the offset at which the first sentence of a text ends.
func sentenceEnd(text string) int {
	for i := range len(text) {
		if text[i] == '\n' || text[i] == between[0] && strings.HasPrefix(text[i:], between) {
			return i
		}
	}
	return len(text)
}

// separator is the length of the separator at the start of a text.
func separator(text string) int {
	switch {
	case strings.HasPrefix(text, between):
		return len(between)
	case text != "":
		return 1
	}
	return 0
}

// without returns a comment without a part, leaving an empty sentence unless AppendFacts
// would put the part there anyway.
func without(comment string, from, to int) string {
	if before, ok := strings.CutSuffix(comment[:from], between); ok && to == len(comment) {
		return before
	}
	return comment[:from] + comment[to:]
}
