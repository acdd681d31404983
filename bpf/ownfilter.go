package bpf

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"unsafe"

	"golang.org/x/sys/unix"
)

// OwnFilter is the filter that a socket has of its own: a classic one, or an eBPF program.
type OwnFilter struct {
	// Program is the eBPF program; its ID is 0 for a classic filter.
	Program Program
	// UID is the user who has loaded the Program.
	UID uint32
	// Classic are the instructions of a classic filter.
	Classic []unix.SockFilter
}

// Key identifies the filter, as in the Filter of a Record. It is 0 for none.
func (f *OwnFilter) Key() uint64 {
	if f.Program.ID != 0 {
		return uint64(f.Program.ID)
	}
	return ClassicKey(f.Classic)
}

const (
	// classicFilter, classicHashed are CLASSIC_FILTER and CLASSIC_HASHED of ownfilter.h.
	classicFilter = 1 << 63
	classicHashed = 512
)

// ClassicKey identifies a classic filter, as in the Filter of a Record: by its length, and its
// instructions as far as they are no more than 512. It is 0 for none.
func ClassicKey(program []unix.SockFilter) uint64 {
	if len(program) == 0 {
		return 0
	}
	hash := uint64(len(program))
	for i := range program[:min(len(program), classicHashed)] {
		word := *(*uint64)(unsafe.Pointer(&program[i]))
		_, product := bits.Mul64(hash^word, 0x9e3779b97f4a7c15)
		hash = product + hash>>29
	}
	return hash | classicFilter
}

// Announced is the filter that a record tells of, in those with HookNone.
func (r *Record) Announced() (f OwnFilter, err error) {
	if r.Filter&classicFilter == 0 {
		var raw hookOwnProgram
		if len(r.Data) < int(unsafe.Sizeof(raw)) {
			return f, fmt.Errorf("%w: an eBPF filter is told of in %d bytes", errRecord, len(r.Data))
		}
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&raw)), unsafe.Sizeof(raw)), r.Data)
		return raw.filter(), nil
	}
	if len(r.Data)%unix.SizeofSockFilter != 0 || len(r.Data) == 0 {
		return f, fmt.Errorf("%w: a classic filter is told of in %d bytes", errRecord, len(r.Data))
	}
	for at := 0; at < len(r.Data); at += unix.SizeofSockFilter {
		order := binary.NativeEndian
		f.Classic = append(f.Classic, unix.SockFilter{
			Code: order.Uint16(r.Data[at:]), Jt: r.Data[at+2], Jf: r.Data[at+3], K: order.Uint32(r.Data[at+4:]),
		})
	}
	return f, nil
}

func (raw *hookOwnProgram) filter() OwnFilter {
	return OwnFilter{
		Program: Program{ID: raw.Id, Name: unix.ByteSliceToString(raw.Name[:]), Loaded: int64(raw.Loaded)},
		UID:     raw.Uid,
	}
}

// Extended tells which eBPF program is the filter of a socket, given by a descriptor of this
// process. Its ID is 0 if there is none, or if nobody can tell: before Linux 5.10.
func (h *Hook) Extended(fd int) (OwnFilter, error) {
	if !h.canAsk {
		return OwnFilter{}, nil
	}
	id, err := h.filterID(fd)
	if err != nil || id == 0 {
		return OwnFilter{}, err
	}
	var raw hookOwnProgram
	if err := h.objects.variables[hookVarFoundFilter].Get(&raw); err != nil {
		return OwnFilter{}, fmt.Errorf("asking for the filter of a socket: %w", err)
	}
	return raw.filter(), nil
}
