package explain

import "fmt"

// settle counts what has become of a packet, and says it in a few words.
func (e *entry) settle() (fate string) {
	if e.first == nil {
		return "no packet of the kernel view belongs to this"
	}
	out := e.socket.out
	if e.delivered {
		out.Delivered.add(e.id, e.got)
	}
	payload := uint64(max(e.end-e.payload, 0))
	switch {
	case e.verdict == 0:
		out.Undelivered.ByFilter.add(e.id, payload)
		return "the filter dropped it: its verdict was 0"
	case e.got > 0:
		return e.settleRead(payload)
	case e.tcp && e.socket.stream && (payload == 0 || e.repeated):
		return e.settleControl(payload)
	case e.delivered:
		return "userspace gets a message without bytes"
	case e.dropped:
		out.Undelivered.ByQueue.add(e.id, payload)
		return "the receive queue was full and dropped it"
	case e.passed:
		out.Undelivered.PassedOver.add(e.id, payload)
		return "userspace never got it, but got later ones; the file does not say why"
	}
	out.Undelivered.AtEnd.add(e.id, payload)
	return "not read by the end of the capture"
}

// settleRead counts a packet that userspace got bytes of.
func (e *entry) settleRead(payload uint64) (fate string) {
	out := e.socket.out
	if size := int64(e.gotFrom - e.offset0); size >= 0 {
		out.Unseen.Headers.add(e.id, uint64(size))
		if out.Unseen.HeaderSize == nil {
			out.Unseen.HeaderSize = &Range{size, size}
		}
		r := out.Unseen.HeaderSize
		r.Least, r.Most = min(r.Least, size), max(r.Most, size)
	}
	if e.header.flags&tcpFIN != 0 && e.tcp && e.socket.stream {
		out.Unseen.FIN.add(e.id, 0)
	}
	kernel := uint64(max(e.length-e.offset0, 0))
	could := uint64(max(e.end-e.gotFrom, 0))
	switch {
	case e.got >= kernel:
		return fmt.Sprintf("the kernel view has %s, userspace gets all of them", bytesOf(kernel))
	case e.got >= could:
		return fmt.Sprintf("the kernel view has %s, userspace gets the last %s", bytesOf(kernel), digits(e.got))
	case e.verdict > 0:
		out.Undelivered.Truncated.add(e.id, could-e.got)
		return fmt.Sprintf("the filter keeps %s of %s bytes, userspace gets %s", digits(uint64(e.verdict)), digits(kernel), digits(e.got))
	}
	out.Undelivered.InPart.add(e.id, could-e.got)
	return fmt.Sprintf("userspace gets %s of %s", digits(e.got), bytesOf(could))
}

// settleControl counts a segment that brings nothing new to a stream.
func (e *entry) settleControl(payload uint64) (fate string) {
	u := &e.socket.out.Unseen
	flags := e.header.flags
	switch {
	case e.repeated:
		u.Repeated.add(e.id, payload)
		return "its payload was there before: userspace sees nothing of it"
	case e.handshake:
		u.Handshake.add(e.id, 0)
		return "part of the handshake: userspace sees nothing of it"
	case flags&tcpRST != 0:
		u.RST.add(e.id, 0)
		if e.ended {
			return "a reset: userspace gets an error, and no bytes"
		}
		return "a reset: userspace sees nothing of it"
	case flags&tcpFIN != 0:
		u.FIN.add(e.id, 0)
		if e.ended {
			return "no payload: userspace gets the end of the stream, which is 0 bytes"
		}
		return "the end of the stream, which userspace has not read"
	}
	u.ACK.add(e.id, 0)
	return "an ACK without payload: userspace sees nothing of it"
}
