package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A look is how text is shown.
type look struct {
	bold, faint bool
	colour      int // 1 to 7 as SGR has them, 0 for the terminal's own
}

// A piece is text that appeared at once, in one line and with one look.
type piece struct {
	at          time.Duration
	row, column int
	look        look
	text        string
}

// A place is where the cursor was from a time on.
type place struct {
	at          time.Duration
	row, column int
}

// A screen is a terminal on which nothing is ever written twice at one place: what it has shown is
// one long page, of which the last rows are to be seen.
type screen struct {
	pieces  []piece
	cursors []place
	row     int
	column  int
	look    look
	rest    string // the beginning of a character or a sequence
}

// What programs send besides text: SGR, and whether pasted text is to be marked.
var sequence = regexp.MustCompile(`^\x1b\[([?0-9;]*)([a-zA-Z])`)

// write shows what a program has sent. An error says that it needs more of a terminal than this.
func (s *screen) write(at time.Duration, text string) error {
	text = s.rest + text
	s.rest = ""
	for len(text) > 0 {
		if text[0] == '\x1b' {
			m := sequence.FindStringSubmatch(text)
			switch {
			case m == nil && len(text) < 12:
				s.rest = text
				return nil
			case m == nil || m[2] != "m":
				return fmt.Errorf("%.12q is no sequence that a film can show", text)
			}
			if err := s.change(m[1]); err != nil {
				return err
			}
			text = text[len(m[0]):]
			continue
		}
		r, n := utf8.DecodeRuneInString(text)
		if r == utf8.RuneError && !utf8.FullRuneInString(text) {
			s.rest = text
			return nil
		}
		s.put(at, r)
		text = text[n:]
	}
	s.cursors = append(s.cursors, place{at, s.row, s.column})
	return nil
}

func (s *screen) put(at time.Duration, r rune) {
	switch r {
	case '\r':
		s.column = 0
		return
	case '\n':
		s.row++
		return
	case '\t':
		s.column = min(s.column/8*8+8, columns-1)
		return
	}
	if s.column == columns {
		s.row, s.column = s.row+1, 0
	}
	if n := len(s.pieces) - 1; n >= 0 {
		p := &s.pieces[n]
		joins := p.at == at && p.row == s.row && p.look == s.look && p.column+utf8.RuneCountInString(p.text) == s.column
		// Who draws an SVG may make one space of two.
		if joins && (!strings.HasSuffix(p.text, " ") || r != ' ') && strings.TrimSpace(p.text) != "" {
			p.text += string(r)
			s.column++
			return
		}
	}
	s.pieces = append(s.pieces, piece{at, s.row, s.column, s.look, string(r)})
	s.column++
}

// change is SGR.
func (s *screen) change(parameters string) error {
	for p := range strings.SplitSeq(parameters, ";") {
		n, _ := strconv.Atoi(p) // none is 0
		switch {
		case n == 0:
			s.look = look{}
		case n == 1:
			s.look.bold = true
		case n == 2:
			s.look.faint = true
		case n == 22:
			s.look.bold, s.look.faint = false, false
		case n >= 31 && n <= 37:
			s.look.colour = n - 30
		case n == 39:
			s.look.colour = 0
		default:
			return fmt.Errorf("%q is no look that a film can show", parameters)
		}
	}
	return nil
}

// lines are what the screen has shown, as text.
func (s *screen) lines() []string {
	all := make([]string, s.row+1)
	for _, p := range s.pieces {
		if gap := p.column - utf8.RuneCountInString(all[p.row]); gap > 0 {
			all[p.row] += strings.Repeat(" ", gap)
		}
		all[p.row] += p.text
	}
	return all
}
