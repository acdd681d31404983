package explain

import (
	"fmt"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// unread is the fate of a packet that could have been read. The file tells no more: a
// read may have come later, or unobserved.
const unread = "no read of the file is joined to it"

// settle counts the fate of a packet, and describes it in a few words. told says that it
// is known even without a user view.
func (e *entry) settle() (fate string, told bool) {
	if e.sent {
		return "what was handed to the kernel to be sent", true
	}
	if e.first == nil {
		return "no packet of the file is joined to it", true
	}
	if e.dropAlone() {
		return e.settleDropped(), true
	}
	if e.departed {
		fate = e.settleDeparted()
		if e.reason != "" {
			e.lose(laneDropped)
			fate = "the socket sent it, and the kernel dropped it: " + e.reason
		}
		return fate, true
	}
	if e.chosenOnly() {
		return e.settleChosen(), true
	}
	if e.onWireOnly() {
		return e.settleFrame(), true
	}
	out := e.socket.out
	if e.alone() {
		out.Cgroup.Alone.add(e.id, 0)
		return "the cgroup hook saw it come, and the kernel view does not have it", true
	}
	if e.delivered {
		out.Delivered.add(e.id, e.got)
	}
	could := uint64(e.could())
	switch {
	case e.verdict == 0:
		out.Undelivered.ByFilter.add(e.id, could)
		e.lose(laneDropped)
		return "the filter kept it from this socket: its verdict was 0" + e.because(), true
	case e.got > 0 || e.delivered && e.end > e.gotFrom && !e.socket.stream:
		return e.settleRead(), false
	case e.isTCP && e.socket.stream && (could == 0 || e.repeated):
		fate, told = e.settleControl(could)
		return fate + e.because(), told
	case e.delivered:
		e.countHeaders()
		return "userspace gets a message without bytes", false
	case e.dropped:
		out.Undelivered.ByQueue.add(e.id, could)
		e.lose(laneDropped)
		return "the receive queue was full and dropped it" + e.because(), e.reason != ""
	case e.reason != "":
		out.Undelivered.ByKernel.add(e.id, could)
		e.lose(laneDropped)
		return "the kernel dropped it: " + e.reason, true
	case e.unfollowed():
		e.socket.unfollowed.add(e.id, could)
		return unknownRead, true
	}
	return e.settleUnread(could), false
}

// settleUnread counts a packet that could have been read, and to which no read is joined.
func (e *entry) settleUnread(could uint64) (fate string) {
	u, ofTalk := &e.socket.out.Undelivered, &e.talk.out.Unread
	at, fate := &u.AtEnd, e.unread()
	switch {
	case e.givenUp:
		at, ofTalk = &u.NotKnown, &e.talk.out.NotKnown
	case e.passed:
		at = &u.PassedOver
		fate += ", but to later ones; the file does not say why"
	}
	at.add(e.id, could)
	ofTalk.add(e.id, could)
	e.socket.unjoined.add(e.id, could)
	return fate
}

// unread says that no read got a packet, and whether somebody has looked at it.
func (e *entry) unread() string {
	if e.peeked {
		return "userspace peeked at it, and " + unread
	}
	return unread
}

// unknownRead is the fate of a packet of which the file does not tell whether it was read.
const unknownRead = "the file does not tell what userspace got of it"

// unfollowed tells whether a packet came to a socket of another process whose reads are not followed, whatever is known
// of other sockets of its kind.
func (e *entry) unfollowed() bool {
	k, known := capture.KindByName(e.socket.out.Kind)
	return known && !k.ReadsFollowed() && e.first != nil && e.first.Process != "" && !e.delivered
}

// trimmed tells whether the filter has kept only a part of what userspace could have got of a packet.
func (e *entry) trimmed() bool {
	return e.verdict > 0 && e.could() > 0 && !e.repeated && e.offset0+e.verdict < e.end
}

// because is the kernel's reason behind what is known of a packet already.
func (e *entry) because() string {
	if e.reason == "" {
		return ""
	}
	return " (" + e.reason + ")"
}

// settleRead counts a packet from which userspace got bytes.
func (e *entry) settleRead() (fate string) {
	out := e.socket.out
	if e.differs {
		return "userspace gets other bytes"
	}
	e.countHeaders()
	if e.tcp.Flags&header.FIN != 0 && e.isTCP && e.socket.stream {
		e.settleEnd()
	}
	view := e.first.View
	if e.seen[capture.ViewKernel] {
		view = capture.ViewKernel
	}
	has := uint64(max(e.length-e.offset0, 0))
	could := uint64(max(e.end-e.gotFrom, 0))
	kept := could
	if e.verdict > 0 {
		kept = uint64(min(max(e.offset0+e.verdict, e.gotFrom), max(e.end, e.gotFrom)) - e.gotFrom)
	}
	if kept < could {
		out.Undelivered.Trimmed.add(e.id, could-kept)
	}
	switch {
	case e.got >= kept:
	case e.short:
		out.Undelivered.ByBuffer.add(e.id, kept-e.got)
	default:
		out.Undelivered.InPart.add(e.id, kept-e.got)
	}
	switch {
	case e.got >= has:
		return fmt.Sprintf("the %s view has %s, userspace gets all of them", view, bytesOf(has))
	case e.got >= could && e.end == e.length:
		return fmt.Sprintf("the %s view has %s, userspace gets the last %s", view, bytesOf(has), digits(e.got))
	case e.got >= could:
		return fmt.Sprintf("the %s view has %s, of which userspace gets %s", view, bytesOf(has), digits(e.got))
	case kept < could:
		return fmt.Sprintf("the filter keeps %s of %s, userspace gets %s", digits(uint64(e.verdict)), bytesOf(has), digits(e.got))
	}
	return fmt.Sprintf("userspace gets only %s of %s", digits(e.got), bytesOf(could))
}

// countHeaders counts what precedes the bytes of a packet that userspace got, or would have got if it had any.
func (e *entry) countHeaders() {
	u, size := &e.socket.out.Unseen, int64(e.gotFrom-e.offset0)
	if size < 0 {
		return
	}
	u.Headers.add(e.id, uint64(size))
	if u.HeaderSize == nil {
		u.HeaderSize = &Range{size, size}
	}
	u.HeaderSize.Least, u.HeaderSize.Most = min(u.HeaderSize.Least, size), max(u.HeaderSize.Most, size)
}

// settleEnd counts a segment that ends a stream.
func (e *entry) settleEnd() {
	s := e.socket
	all, by := &s.out.Unseen.FIN, &s.fins
	if e.tcp.Flags&header.RST != 0 {
		all, by = &s.out.Unseen.RST, &s.resets
	}
	all.add(e.id, 0)
	if e.ended {
		by.read.add(e.id, 0)
	} else {
		by.unread.add(e.id, 0)
	}
}

// settleControl counts a segment without new payload.
func (e *entry) settleControl(payload uint64) (fate string, told bool) {
	u := &e.socket.out.Unseen
	flags := e.tcp.Flags
	switch {
	case e.repeated:
		u.Repeated.add(e.id, payload)
		return "its payload was there before: userspace sees nothing of it", true
	case e.handshake:
		u.Handshake.add(e.id, 0)
		return "part of the handshake: userspace sees nothing of it", true
	case flags&(header.RST|header.FIN) != 0:
		e.settleEnd()
		what := "the end of the stream"
		if flags&header.RST != 0 {
			what = "a reset"
		}
		switch {
		case e.failed:
			return what + ": userspace gets an error, and no bytes", false
		case e.ended:
			return what + ": userspace gets 0 bytes, which says that the stream has ended", false
		}
		return what + ": " + e.unread(), false
	}
	u.ACK.add(e.id, 0)
	return "an ACK without payload: userspace sees nothing of it", true
}
