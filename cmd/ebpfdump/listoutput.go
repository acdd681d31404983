package main

import (
	"bufio"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// The columns of the table. The first and the last have a line for each group of owners.
const (
	columnFD = iota
	columnKind
	columnState
	columnCookie
	columnAddress
	columnOwner
	columns
)

var columnTitles = [columns]string{"FD", "KIND", "STATE", "COOKIE", "ADDRESS", "OWNER"}

const (
	listWidth = 80
	// descriptorRoom is the most that descriptors take, unless a single one takes more.
	descriptorRoom = 12
	// ownerRoom is the most that addresses leave for the owners, if those need it; addressRoom
	// is what they have in any case.
	ownerRoom, addressRoom = 22, 21
)

// table is the list for people: lines of 80 columns, unless an address is longer.
type table struct {
	w     *bufio.Writer
	gap   int          // between columns
	from  [columns]int // where columns begin
	shown [columns]bool
}

// writeListTable prints sockets for people.
func writeListTable(w io.Writer, sockets []capture.Socket, instructions bool) error {
	if len(sockets) == 0 {
		return nil
	}
	t := &table{w: bufio.NewWriter(w)}
	t.measure(sockets)
	t.row(columnTitles)
	for i := range sockets {
		s := &sockets[i]
		groups := ownerGroups(s.Owners)
		t.row(cells(s, &groups[0]))
		for _, g := range groups[1:] {
			t.row([columns]string{columnFD: ranges(g.descriptors, descriptorRoom), columnOwner: g.String()})
		}
		for _, note := range socketNotes(s, instructions) {
			indent := strings.Repeat(" ", t.from[columnKind]+len(note)-len(strings.TrimLeft(note, " ")))
			lines := terminal.Wrap(strings.TrimLeft(note, " "), listWidth-len(indent), listWidth-len(indent)-2)
			t.w.WriteString(indent + strings.Join(lines, "\n  "+indent) + "\n")
		}
	}
	return t.w.Flush()
}

func cells(s *capture.Socket, owner *ownerGroup) [columns]string {
	return [columns]string{
		columnFD: ranges(owner.descriptors, descriptorRoom), columnKind: s.Kind, columnState: s.State,
		columnCookie: strconv.FormatUint(s.Cookie, 10), columnAddress: socketAddress(s), columnOwner: owner.String(),
	}
}

// measure places the columns. One that is empty in all rows is left out.
func (t *table) measure(sockets []capture.Socket) {
	var widths [columns]int
	for i := range sockets {
		s := &sockets[i]
		for _, g := range ownerGroups(s.Owners) {
			for c, cell := range cells(s, &g) {
				widths[c] = max(widths[c], utf8.RuneCountInString(cell))
			}
		}
	}
	needed, room := 0, listWidth
	for c := range widths {
		if t.shown[c] = widths[c] > 0; t.shown[c] {
			widths[c] = max(widths[c], len(columnTitles[c]))
			needed += widths[c] + 2
		}
	}
	if t.gap = 2; needed-t.gap > listWidth {
		t.gap = 1
	}
	for c := range columnAddress {
		if t.shown[c] {
			room -= widths[c] + t.gap
		}
	}
	owners := min(widths[columnOwner], ownerRoom)
	widths[columnAddress] = min(widths[columnAddress], max(room-t.gap-owners, addressRoom))
	at := 0
	for c := range widths {
		t.from[c] = at
		if t.shown[c] {
			at += widths[c] + t.gap
		}
	}
}

// row prints cells. After one that is too long for its column, the next one is in a line of its
// own.
func (t *table) row(cells [columns]string) {
	at := 0
	for c, cell := range cells {
		if !t.shown[c] || cell == "" {
			continue
		}
		if at > 0 && at+t.gap > t.from[c] {
			t.w.WriteString("\n")
			at = 0
		}
		t.w.WriteString(strings.Repeat(" ", t.from[c]-at))
		if c == columnOwner {
			room := max(listWidth-t.from[c], ownerRoom)
			cell = strings.Join(terminal.Wrap(cell, room, room), "\n"+strings.Repeat(" ", t.from[c]))
		}
		t.w.WriteString(cell)
		at = t.from[c] + utf8.RuneCountInString(cell)
	}
	t.w.WriteString("\n")
}

// listedSocket is a socket as JSON. The help of the command documents the fields.
type listedSocket struct {
	Kind     string `json:"kind"`
	Family   int    `json:"family"`
	Type     int    `json:"type"`
	Protocol int    `json:"protocol"`
	State    string `json:"state,omitempty"`
	Cookie   uint64 `json:"cookie"`
	Inode    uint64 `json:"inode"`
	Network  uint32 `json:"network_namespace,omitempty"`

	Local     string `json:"local,omitempty"`
	LocalPort uint16 `json:"local_port,omitempty"`
	Peer      string `json:"peer,omitempty"`
	PeerPort  uint16 `json:"peer_port,omitempty"`

	Owners []listedOwner `json:"owners"`

	Classic   []string         `json:"classic_filter,omitempty"`
	Extended  *listedProgram   `json:"ebpf_filter,omitempty"`
	Locked    bool             `json:"filter_locked,omitempty"`
	Reuseport *listedReuseport `json:"reuseport,omitempty"`
	Sockmaps  []listedMap      `json:"sockmaps,omitempty"`
	ULP       string           `json:"ulp,omitempty"`
	MPTCP     *listedMPTCP     `json:"mptcp,omitempty"`
}

type listedOwner struct {
	PID         int    `json:"pid"`
	Name        string `json:"name"`
	Descriptors []int  `json:"descriptors"`
}

type listedProgram struct {
	ID     uint32 `json:"id,omitempty"`
	Name   string `json:"name,omitempty"`
	Loaded string `json:"loaded,omitempty"` // UTC, RFC 3339

	Tap *listedTap `json:"tap,omitempty"`
}

type listedTap struct {
	Ended  bool           `json:"ended"`
	PID    int            `json:"pid,omitempty"`
	Wraps  bool           `json:"wraps"`
	Inside *listedProgram `json:"inside,omitempty"`
}

type listedReuseport struct {
	Sockets int            `json:"sockets"`
	Program *listedProgram `json:"ebpf_program,omitempty"`
	Classic []string       `json:"classic_program,omitempty"`
}

type listedMap struct {
	ID   uint32 `json:"id"`
	Name string `json:"name"`
}

type listedMPTCP struct {
	Subflows int  `json:"subflows"`
	Fallback bool `json:"fallback"`
}

// writeListJSON prints a JSON object a line.
func writeListJSON(w io.Writer, sockets []capture.Socket) error {
	to := bufio.NewWriter(w)
	for i := range sockets {
		if err := terminal.WriteJSON(to, listed(&sockets[i]), ""); err != nil {
			return err
		}
	}
	return to.Flush()
}

func listed(s *capture.Socket) listedSocket {
	l := listedSocket{
		Kind: s.Kind, Family: s.Family, Type: s.Type, Protocol: s.Protocol, State: s.State,
		Cookie: s.Cookie, Inode: s.Inode, Network: s.Network,
		Classic: bpf.ClassicText(s.Classic), Locked: s.Locked, ULP: s.ULP,
	}
	l.Local, l.LocalPort = listedAddress(s.Local)
	l.Peer, l.PeerPort = listedAddress(s.Peer)
	for _, o := range s.Owners {
		l.Owners = append(l.Owners, listedOwner(o))
	}
	if s.Extended {
		l.Extended = &listedProgram{}
		if s.Filter.ID != 0 {
			l.Extended = listedProgramOf(s.Filter)
		}
		if t := s.Tap; t != nil {
			l.Extended.Tap = &listedTap{Ended: t.Ended, PID: t.PID, Wraps: t.Wraps}
			if t.Inside.ID != 0 {
				l.Extended.Tap.Inside = listedProgramOf(t.Inside)
			}
		}
	}
	if s.ReuseportSockets > 0 {
		l.Reuseport = &listedReuseport{Sockets: s.ReuseportSockets, Classic: bpf.ClassicText(s.ReuseportClassic)}
		if s.Reuseport.ID != 0 {
			l.Reuseport.Program = listedProgramOf(s.Reuseport)
		}
	}
	for _, m := range s.Sockmaps {
		l.Sockmaps = append(l.Sockmaps, listedMap(m))
	}
	if s.MPTCP != nil {
		mptcp := listedMPTCP(*s.MPTCP)
		l.MPTCP = &mptcp
	}
	return l
}

func listedProgramOf(p capture.Program) *listedProgram {
	return &listedProgram{ID: p.ID, Name: p.Name, Loaded: p.Loaded.UTC().Format(time.RFC3339)}
}

func listedAddress(a capture.Address) (string, uint16) {
	if a.IP.IsValid() {
		return a.IP.String(), a.Port
	}
	return a.Name, 0
}
