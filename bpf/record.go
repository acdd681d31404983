package bpf

import (
	"errors"
	"fmt"
	"unsafe"
)

// Record is what the tap says of one packet. The embedded fields are those of
// struct record in tap.c, which documents each.
type Record struct {
	tapRecord
	// Data holds the packet from offset 0 on: Caplen bytes of the Len that it had.
	Data []byte

	raw []byte
}

const headerSize = int(unsafe.Sizeof(tapRecord{}))

// errRecord is what every error of Decode is.
var errRecord = errors.New("not a record of the tap")

// Decode reads a record as the tap wrote it, in native byte order. rec.Data
// is a part of sample.
func Decode(sample []byte, rec *Record) error {
	if len(sample) < headerSize {
		return fmt.Errorf("%w: %d bytes, at least %d expected", errRecord, len(sample), headerSize)
	}
	header := unsafe.Slice((*byte)(unsafe.Pointer(&rec.tapRecord)), headerSize)
	copy(header, sample)
	if room := len(sample) - headerSize; uint64(rec.Caplen) > uint64(room) {
		return fmt.Errorf("%w: claims %d bytes of packet, has room for %d", errRecord, rec.Caplen, room)
	}
	if rec.Caplen > rec.Len {
		return fmt.Errorf("%w: captured %d bytes of %d", errRecord, rec.Caplen, rec.Len)
	}
	if int(rec.LinkLen) > len(rec.Link) || int(rec.NetLen) > len(rec.Net) {
		return fmt.Errorf("%w: headers of %d and %d bytes", errRecord, rec.LinkLen, rec.NetLen)
	}
	rec.Data = sample[headerSize : headerSize+int(rec.Caplen) : headerSize+int(rec.Caplen)]
	return nil
}

// LinkHeader is what the filter reached from the link header on: 14 bytes, or
// nothing where it reached none.
func (r *Record) LinkHeader() []byte { return r.Link[:max(r.LinkLen, 0)] }

// NetHeader is what the filter reached from the network header on: an IPv4
// header with its options, or an IPv6 header with up to 24 bytes of extension
// headers, or nothing where it reached none.
func (r *Record) NetHeader() []byte { return r.Net[:max(r.NetLen, 0)] }
