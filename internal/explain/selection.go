package explain

import (
	"fmt"
	"slices"

	"github.com/ebpfdump/ebpfdump/capture"
)

// Selections is how the sockets of a reuseport group were chosen.
type Selections struct {
	// Sockets is how many the group has.
	Sockets int `json:"sockets"`
	// Chosen are the packets for which the program named a socket, in the order of the sockets.
	Chosen []Chosen `json:"chosen,omitempty"`
	// Hash are those that it left to the kernel's hash, and Refused those for which it asked for a
	// socket that there is not, so that the hash decided as well.
	Hash    Count `json:"hash"`
	Refused Count `json:"refused"`
	// Dropped are those that it had dropped.
	Dropped Count `json:"dropped"`
	// Unknown are those of which it is not known which socket it chose.
	Unknown Count `json:"unknown"`
}

// Chosen are the packets for which a program named one socket.
type Chosen struct {
	// Socket is the number of the socket in its group, from 0 on, Cookie its SO_COOKIE.
	Socket int    `json:"socket"`
	Cookie uint64 `json:"cookie"`
	Count
}

// selectPacket handles a packet of the select view, of which the kernel view tells the rest.
func (s *socket) selectPacket(p *capture.Packet) {
	if s.out.Selections == nil {
		s.out.Selections = &Selections{}
	}
	s.choosing(p)
	all, of := s.out.Selections, &p.Selection
	if of.Sockets == 0 {
		return
	}
	all.Sockets = max(all.Sockets, of.Sockets)
	length := uint64(max(p.Len, len(p.Data)))
	switch {
	case of.How == capture.SelectorProgram:
		at, found := slices.BinarySearchFunc(all.Chosen, of.Socket, func(c Chosen, socket int) int { return c.Socket - socket })
		if !found {
			all.Chosen = slices.Insert(all.Chosen, at, Chosen{Socket: of.Socket, Cookie: of.Cookie})
		}
		all.Chosen[at].add(p.ID, length)
	case of.How == capture.SelectorDrop:
		all.Dropped.add(p.ID, length)
	case of.How == capture.SelectorHash && of.Refused:
		all.Refused.add(p.ID, length)
	case of.How == capture.SelectorHash:
		all.Hash.add(p.ID, length)
	default:
		all.Unknown.add(p.ID, length)
	}
}

// choosing enters a packet of the select view, or joins it to the one that it is of. It comes to a program
// before it comes to the filter of a socket.
func (s *socket) choosing(p *capture.Packet) {
	e := s.find(p)
	switch {
	case e != nil && !e.departed && !e.seen[capture.ViewSelect]:
		s.sameView(e, p)
	default:
		d := dissect(p.Interface.Layer, p.Protocol, p.Data, p.Len)
		e = s.newEntry(p, &d)
	}
	e.refused = e.refused || p.Selection.How == capture.SelectorDrop
}

// chosenOnly tells whether a packet came to the program that chooses a socket, and to no filter.
func (e *entry) chosenOnly() bool {
	return e.seen[capture.ViewSelect] && !e.reached && !e.delivered && e.got == 0
}

// settleChosen counts a packet that came to no socket of the group, as far as the file tells.
func (e *entry) settleChosen() (fate string) {
	switch {
	case e.refused:
		e.socket.strayed++
		e.lose(laneDropped)
		return "the program that chooses a socket had the kernel drop it" + e.because()
	case !e.socket.seesFilter():
		return "a program chose a socket for it, and the file does not tell what came of that" + e.because()
	}
	e.socket.strayed++
	return "a program chose a socket for it, and the filter of none saw it" + e.because()
}

func (s *socket) saySelections() Finding {
	f := Finding{Topic: "select"}
	all := s.out.Selections
	if all == nil || all.Sockets == 0 {
		return f
	}
	var words []string
	for i := range all.Chosen {
		c := &all.Chosen[i]
		words = append(words, fmt.Sprintf("socket %d for %s", c.Socket, c.named()))
	}
	f.Text = fmt.Sprintf("A program chose among %d sockets", all.Sockets)
	if len(words) > 0 {
		f.Text += ": " + list(words)
	}
	f.Text += "."
	say := func(c Count, before, behind string) {
		if c.Packets > 0 {
			f.Text += " " + before + c.named() + behind + "."
		}
	}
	say(all.Hash, "It left to the kernel's hash: ", "")
	say(all.Refused, "It asked for a socket that there is not, so that the kernel's hash took one: ", "")
	say(all.Dropped, "It had the kernel drop: ", "")
	say(all.Unknown, "Which socket it chose is not known: ", "")
	return f
}
