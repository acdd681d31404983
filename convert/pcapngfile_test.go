package convert

import (
	"bytes"
	"encoding/binary"
	"math"
)

// file is a pcapng file of either byte order, as other programs may write it.
type file struct {
	bytes.Buffer
	order binary.AppendByteOrder
	// limit is the snaplen of interfaces, 0 for none.
	limit uint32
}

func newFile(order binary.AppendByteOrder) *file { return &file{order: order} }

func (f *file) block(blockType uint32, body ...[]byte) {
	all := bytes.Join(body, nil)
	for len(all)%4 != 0 {
		all = append(all, 0)
	}
	length := uint32(len(all) + blockFrame)
	b := f.order.AppendUint32(f.order.AppendUint32(nil, blockType), length)
	f.Write(f.order.AppendUint32(append(b, all...), length))
}

func (f *file) numbers(n ...uint32) (b []byte) {
	for _, n := range n {
		b = f.order.AppendUint32(b, n)
	}
	return b
}

type option struct {
	code  uint16
	value func(order binary.AppendByteOrder) []byte
}

func stringOption(code uint16, value string) option {
	return option{code, func(binary.AppendByteOrder) []byte { return []byte(value) }}
}

func numberOption(code uint16, value uint64) option {
	return option{code, func(order binary.AppendByteOrder) []byte { return order.AppendUint64(nil, value) }}
}

func (f *file) options(options []option) (b []byte) {
	for _, o := range options {
		value := o.value(f.order)
		b = f.order.AppendUint16(f.order.AppendUint16(b, o.code), uint16(len(value)))
		b = append(b, value...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	return b
}

func (f *file) section(options ...option) {
	body := f.numbers(byteOrderMagic)
	body = f.order.AppendUint16(f.order.AppendUint16(body, 1), 0)
	f.block(blockSection, body, f.numbers(math.MaxUint32, math.MaxUint32), f.options(options))
}

func (f *file) iface(link uint16, options ...option) {
	body := f.order.AppendUint16(f.order.AppendUint16(nil, link), 0)
	f.block(blockInterface, body, f.numbers(f.limit), f.options(options))
}

func (f *file) packet(id uint32, ticks uint64, data []byte, options ...option) {
	padded := append(bytes.Clone(data), make([]byte, -len(data)&3)...)
	f.block(blockEnhancedPacket, f.numbers(id, uint32(ticks>>32), uint32(ticks), uint32(len(data)), uint32(len(data))), padded, f.options(options))
}
