package bpf

import (
	"structs"
	"unsafe"
)

// ControlHeaders are the headers of a message's ancillary data, as recvmsg left them in the
// process's control buffer. Numbers are in native byte order, lengths in bytes.
type ControlHeaders struct {
	_ structs.HostLayout
	// Segment is the size of the segments that UDP_GRO tells of; 0 without.
	Segment uint32
	// Rest is how many bytes of the control buffer are behind those of All.
	Rest uint32
	// All are the first headers, up to one whose Len is 0: the fields of struct cmsghdr.
	All [6]struct {
		_     structs.HostLayout
		Len   uint32
		Level int32
		Type  int32
	}
}

// The compiler compares the fields with those of struct controls in calls.h.
var _ = ControlHeaders(callsControls{})

// Controls are the headers that an event of CallControl has. ok is false for other events.
func (e *Event) Controls() (h ControlHeaders, ok bool) {
	size := int(unsafe.Sizeof(h))
	if e.Kind() != CallControl || len(e.Data) < size {
		return h, false
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&h)), size), e.Data)
	return h, true
}
