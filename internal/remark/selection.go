package remark

import (
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
)

// selectFacts are the facts of the select view, in the order of a comment.
var selectFacts = []fact{
	{
		holds: func(p *capture.Packet) bool { return p.Selection.Sockets > 0 },
		say:   saySelection,
		read:  readSelection,
	},
	kernelFacts[len(kernelFacts)-1], // the snaplen
}

const (
	choseSocket  = "chose socket "
	itsCookie    = " (cookie "
	noneGets     = "SK_DROP: none of the "
	noneGetsThis = " sockets gets this"
	leftToHash   = "left to the kernel's hash, which takes one of "
	askedFor     = "asked for socket "
	inVain       = " in vain"
	soTheHash    = ", so the kernel's hash takes one"
	unknownOne   = "chose one of "
	unknownWhich = " sockets, and it is not known which one"
	socketsEnd   = " sockets"
)

func saySelection(b []byte, p *capture.Packet) []byte {
	s := &p.Selection
	of := func(b []byte) []byte { return strconv.AppendInt(append(b, " of "...), int64(s.Sockets), 10) }
	switch {
	case s.How == capture.SelectorProgram:
		b = of(strconv.AppendInt(append(b, choseSocket...), int64(s.Socket), 10))
		return append(strconv.AppendUint(append(b, itsCookie...), s.Cookie, 10), ')')
	case s.How == capture.SelectorDrop:
		return append(strconv.AppendInt(append(b, noneGets...), int64(s.Sockets), 10), noneGetsThis...)
	case s.How == capture.SelectorHash && s.Refused:
		b = append(of(strconv.AppendUint(append(b, askedFor...), uint64(s.Asked), 10)), inVain...)
		if s.Errno != 0 {
			b = append(append(append(b, " ("...), errnoName(s.Errno)...), ')')
		}
		return append(b, soTheHash...)
	case s.How == capture.SelectorHash:
		return append(strconv.AppendInt(append(b, leftToHash...), int64(s.Sockets), 10), socketsEnd...)
	}
	return append(strconv.AppendInt(append(b, unknownOne...), int64(s.Sockets), 10), unknownWhich...)
}

// errnoName is an errno's name, or its number if it has none.
func errnoName(errno syscall.Errno) string {
	if name := unix.ErrnoName(errno); name != "" {
		return name
	}
	return strconv.Itoa(int(errno))
}

// readSelection parses what saySelection says.
func readSelection(sentence string, p *capture.Packet) bool {
	read := capture.Selection{}
	switch {
	case strings.HasPrefix(sentence, choseSocket):
		text, cookie, _ := strings.Cut(strings.TrimSuffix(sentence, ")"), itsCookie)
		socket, of, ok := numbersIn(text, choseSocket, " of ", "")
		number, known := number64(cookie)
		if !ok || !known || socket >= of {
			return false
		}
		read = capture.Selection{How: capture.SelectorProgram, Socket: int(socket), Sockets: int(of), Cookie: number}
	case strings.HasPrefix(sentence, askedFor):
		text, found := strings.CutSuffix(sentence, soTheHash)
		text, errno, named := strings.Cut(text, inVain)
		asked, of, ok := numbersIn(text, askedFor, " of ", "")
		if !found || !named || !ok || asked > 1<<32-1 {
			return false
		}
		read = capture.Selection{How: capture.SelectorHash, Refused: true, Asked: uint32(asked), Sockets: int(of)}
		if errno != "" {
			name := strings.TrimSuffix(strings.TrimPrefix(errno, " ("), ")")
			read.Errno = errnosNamed()[name]
		}
	default:
		for _, form := range []struct {
			before, behind string
			how            capture.Selector
		}{
			{noneGets, noneGetsThis, capture.SelectorDrop},
			{leftToHash, socketsEnd, capture.SelectorHash},
			{unknownOne, unknownWhich, capture.SelectorUnknown},
		} {
			if of, ok := numberIn(sentence, form.before, form.behind); ok {
				read = capture.Selection{How: form.how, Sockets: int(of)}
			}
		}
	}
	said := capture.Packet{Selection: read}
	if read.Sockets <= 0 || read.Sockets > capture.MaxReuseport || string(saySelection(nil, &said)) != sentence {
		return false
	}
	p.Selection = read
	return true
}

// errnosNamed are the errnos by what errnoName says.
var errnosNamed = sync.OnceValue(func() map[string]syscall.Errno {
	named := make(map[string]syscall.Errno)
	for errno := syscall.Errno(1); errno < 1<<12; errno++ {
		named[errnoName(errno)] = errno
	}
	return named
})
