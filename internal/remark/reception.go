package remark

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
)

const (
	byTheBuffer  = " by the buffer"
	datagramsOf  = " datagrams of "
	theLastOf    = " bytes, the last of "
	byGRO        = " (UDP_GRO)"
	descriptor   = " descriptor came with it (SCM_RIGHTS)"
	descriptors  = " descriptors came with it (SCM_RIGHTS)"
	ancillaryCut = "its ancillary data was cut (MSG_CTRUNC)"
)

// mentionsReception tells whether a comment mentions a packet's Reception: a buffer that was
// large enough, and what comes with every message, is not worth one.
func mentionsReception(p *capture.Packet) bool {
	r := &p.Reception
	return r.Cut || r.Flags&unix.MSG_CTRUNC != 0 || saysDatagrams(p) || r.Descriptors() > 0
}

func sayCutByBuffer(b []byte, p *capture.Packet) []byte {
	b = strconv.AppendUint(append(b, cutTo...), uint64(p.Reception.Buffer), 10)
	if p.Reception.Whole > 0 {
		b = strconv.AppendUint(append(b, " of "...), uint64(p.Reception.Whole), 10)
	}
	return append(b, byTheBuffer...)
}

func readCutByBuffer(sentence string, p *capture.Packet) bool {
	buffer, whole, ok := numbersIn(sentence, cutTo, " of ", byTheBuffer)
	if !ok {
		whole = 0
		buffer, ok = numberIn(sentence, cutTo, byTheBuffer)
	} else {
		ok = whole > 0
	}
	// A file of others may say more than is possible: it is read back as it is said.
	if ok = ok && max(buffer, whole) <= 1<<32-1; ok {
		r := &p.Reception
		r.Buffer, r.HasBuffer, r.Cut, r.Whole = uint32(buffer), true, true, uint32(whole)
	}
	return ok
}

func saysDatagrams(p *capture.Packet) bool {
	n, _ := p.Reception.Datagrams(p.Got())
	return n > 1
}

func sayDatagrams(b []byte, p *capture.Packet) []byte {
	n, last := p.Reception.Datagrams(p.Got())
	segment := p.Reception.Segment
	b = strconv.AppendInt(b, int64(n), 10)
	b = strconv.AppendUint(append(b, datagramsOf...), uint64(segment), 10)
	if last != int(segment) {
		b = strconv.AppendInt(append(b, theLastOf...), int64(last), 10)
	} else {
		b = append(b, " bytes"...)
	}
	return append(b, byGRO...)
}

func readDatagrams(sentence string, p *capture.Packet) bool {
	count, rest, ok := strings.Cut(sentence, datagramsOf)
	if !ok || !strings.HasSuffix(rest, byGRO) {
		return false
	}
	segment, _, _ := strings.Cut(rest, " ")
	_, ok1 := number64(count)
	n, ok2 := number64(segment)
	if !ok1 || !ok2 || n == 0 || n > 1<<32-1 {
		return false
	}
	before := p.Reception.Segment
	p.Reception.Segment = uint32(n)
	// The length differs if another program cut the packet.
	if saysDatagrams(p) && string(sayDatagrams(nil, p)) == sentence {
		return true
	}
	p.Reception.Segment = before
	return false
}

func sayDescriptors(b []byte, p *capture.Packet) []byte {
	n := p.Reception.Descriptors()
	b = strconv.AppendInt(b, int64(n), 10)
	if n == 1 {
		return append(b, descriptor...)
	}
	return append(b, descriptors...)
}

func readDescriptors(sentence string, p *capture.Packet) bool {
	n, ok := numberIn(sentence, "", descriptors)
	if !ok {
		n, ok = numberIn(sentence, "", descriptor)
		ok = ok && n == 1
	} else {
		ok = n > 1
	}
	if !ok {
		return false
	}
	// The file may list the ancillary data itself.
	if r := &p.Reception; r.Descriptors() == 0 && len(r.Controls) < capture.ControlsMax && n <= (1<<32-1)/4 {
		r.Controls = append(r.Controls, capture.Control{Level: unix.SOL_SOCKET, Type: unix.SCM_RIGHTS, Len: uint32(4 * n)})
	}
	return p.Reception.Descriptors() == int(n)
}
