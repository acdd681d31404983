package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// vmlinuxTypes is the BTF of the running kernel, with some hundred thousand types.
const vmlinuxTypes = "/sys/kernel/btf/vmlinux"

// kernelTypes are the types of the running kernel against which the programs of some objects
// are relocated. The library would index all types, and those of every module, which takes
// longer than everything else before a capture begins.
//
// It is nil if there is no BTF in the usual place: then the library looks for it elsewhere, or
// says what is missing.
func kernelTypes(specs ...*ebpf.CollectionSpec) *btf.Spec {
	all, release, err := mapFile(vmlinuxTypes)
	if err != nil {
		return nil
	}
	defer release()
	names := make(map[string]bool)
	for _, spec := range specs {
		for t := range spec.Types.All() {
			if s, ok := t.(*btf.Struct); ok && s.Name != "" {
				names[essentialName(s.Name)] = true
			}
		}
	}
	few, err := cutTypes(all, names)
	if err != nil {
		return nil
	}
	types, err := btf.LoadSpecFromReader(bytes.NewReader(few))
	if err != nil {
		return nil
	}
	return types
}

// lacksTypes is the error of programs that could not be relocated because there are no types of
// the kernel; nil if that is not why they could not be loaded.
func lacksTypes(doing string, err error) error {
	if !errors.Is(err, ebpf.ErrNotSupported) && !errors.Is(err, btf.ErrNotFound) {
		return nil
	}
	if _, missing := os.Stat(vmlinuxTypes); !errors.Is(missing, os.ErrNotExist) {
		return nil
	}
	return &MissingError{
		What: doing + " needs the kernel's BTF, which is not at " + vmlinuxTypes,
		Hint: "mount sysfs there, or use a kernel built with CONFIG_DEBUG_INFO_BTF",
		Err:  err,
	}
}

// mapFile maps a file that does not change, or reads it if it cannot be mapped.
func mapFile(path string) (content []byte, release func(), err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	content, err = unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err == nil {
		return content, func() { _ = unix.Munmap(content) }, nil
	}
	// With one call: reading it in pieces costs more.
	content = make([]byte, info.Size())
	_, err = io.ReadFull(f, content)
	return content, func() {}, err
}

// Layouts of the kernel's include/uapi/linux/btf.h.
const (
	btfMagic      = 0xeB9F
	btfHeaderSize = 24 // the least
	btfTypeSize   = 12
)

// btfShape is the layout of what follows a type of some kind: a fixed part, and a part for
// each of its vlen members.
type btfShape struct {
	fixed, member int
	// refers: the type's own third word is a type id.
	refers bool
	// memberType and fixedType are the offsets of type ids in these parts.
	memberType, fixedType []int
	// named: a member begins with its name.
	named bool
	// pointer: the type that it refers to is left out.
	pointer bool
}

var btfShapes = [...]btfShape{
	1:  {fixed: 4},                                                   // INT
	2:  {refers: true, pointer: true},                                // PTR
	3:  {fixed: 12, fixedType: []int{0, 4}},                          // ARRAY
	4:  {member: 12, named: true, memberType: []int{4}},              // STRUCT
	5:  {member: 12, named: true, memberType: []int{4}},              // UNION
	6:  {member: 8, named: true},                                     // ENUM
	7:  {},                                                           // FWD
	8:  {refers: true},                                               // TYPEDEF
	9:  {refers: true},                                               // VOLATILE
	10: {refers: true},                                               // CONST
	11: {refers: true},                                               // RESTRICT
	12: {refers: true},                                               // FUNC
	13: {member: 8, named: true, memberType: []int{4}, refers: true}, // FUNC_PROTO
	14: {fixed: 4, refers: true},                                     // VAR
	15: {member: 12, memberType: []int{0}},                           // DATASEC
	16: {},                                                           // FLOAT
	17: {fixed: 4, refers: true},                                     // DECL_TAG
	18: {refers: true},                                               // TYPE_TAG
	19: {member: 12, named: true},                                    // ENUM64
}

const (
	btfStruct = 4
	btfUnion  = 5
	btfEnum   = 6
	btfFunc   = 12
	btfProto  = 13
)

var errTypes = errors.New("this is no BTF that is known")

// btfBlob is encoded BTF.
type btfBlob struct {
	types, strings []byte
	offsets        []uint32 // of the types, by id; 0 is void, which has none
}

// parseTypes finds the offset of each type.
func parseTypes(raw []byte) (*btfBlob, error) {
	order := binary.LittleEndian
	if len(raw) < btfHeaderSize || order.Uint16(raw) != btfMagic || raw[2] != 1 {
		return nil, errTypes
	}
	word := func(at int) uint64 { return uint64(order.Uint32(raw[at:])) }
	begin := word(4)
	types, strings := begin+word(8), begin+word(16)
	if types+word(12) > uint64(len(raw)) || strings+word(20) > uint64(len(raw)) {
		return nil, errTypes
	}
	b := &btfBlob{types: raw[types : types+word(12)], strings: raw[strings : strings+word(20)]}
	// The kernel's types take some 25 bytes each.
	b.offsets = make([]uint32, 1, len(b.types)/20)
	for at := 0; at < len(b.types); {
		if at+btfTypeSize > len(b.types) {
			return nil, errTypes
		}
		kind, size := b.shape(uint32(at))
		if kind == nil || at+size > len(b.types) {
			return nil, errTypes
		}
		b.offsets = append(b.offsets, uint32(at))
		at += size
	}
	return b, nil
}

// shape is the layout of the type at an offset, and its size in bytes; nil for a kind that is
// not known.
func (b *btfBlob) shape(at uint32) (*btfShape, int) {
	kind, vlen := b.kind(at), int(b.word(at+4)&0xffff)
	if kind == 0 || int(kind) >= len(btfShapes) {
		return nil, 0
	}
	s := &btfShapes[kind]
	return s, btfTypeSize + s.fixed + vlen*s.member
}

// allKernelTypes are the types of the running kernel, valid until release is called.
func allKernelTypes() (b *btfBlob, release func(), err error) {
	all, release, err := mapFile(vmlinuxTypes)
	if err == nil {
		if b, err = parseTypes(all); err != nil {
			release()
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading the kernel's types: %w", err)
	}
	return b, release, nil
}

func (b *btfBlob) word(at uint32) uint32 { return binary.LittleEndian.Uint32(b.types[at:]) }

func (b *btfBlob) kind(at uint32) uint32 { return b.word(at+4) >> 24 & 0x1f }

// text is the name at an offset.
func (b *btfBlob) text(name uint32) []byte {
	if int(name) >= len(b.strings) {
		return nil
	}
	text, _, _ := bytes.Cut(b.strings[name:], []byte{0})
	return text
}

// named finds the structs and unions with one of these names.
func (b *btfBlob) named(names map[string]bool) (found []uint32) {
	for id, at := range b.offsets[1:] {
		if kind := b.kind(at); (kind == btfStruct || kind == btfUnion) && names[string(b.text(b.word(at)))] {
			found = append(found, uint32(id+1))
		}
	}
	return found
}

// functions finds the functions whose names begin with a prefix: their ids by name.
func (b *btfBlob) functions(prefix string) map[string]uint32 {
	found := make(map[string]uint32)
	for id, at := range b.offsets[1:] {
		if name := b.word(at); b.kind(at) == btfFunc && int(name) < len(b.strings) && bytes.HasPrefix(b.strings[name:], []byte(prefix)) {
			found[string(b.text(name))] = uint32(id + 1)
		}
	}
	return found
}

// enum are the names of an enumeration's values, by value; none if there is no such enumeration.
func (b *btfBlob) enum(name string) map[uint32]string {
	values := make(map[uint32]string)
	for _, at := range b.offsets[1:] {
		if b.kind(at) != btfEnum || string(b.text(b.word(at))) != name {
			continue
		}
		for i := range b.word(at+4) & 0xffff {
			member := at + btfTypeSize + 8*i
			values[b.word(member+4)] = string(b.text(b.word(member)))
		}
	}
	return values
}

// arguments are the names of a function's arguments.
func (b *btfBlob) arguments(function uint32) (names []string) {
	id := b.word(b.offsets[function] + 8)
	if int(id) >= len(b.offsets) || id == 0 || b.kind(b.offsets[id]) != btfProto {
		return nil
	}
	proto := b.offsets[id]
	for i := range b.word(proto+4) & 0xffff {
		names = append(names, string(b.text(b.word(proto+btfTypeSize+8*i))))
	}
	return names
}

// cutTypes copies the structs and unions with some names, and the types of their members.
// Pointers become pointers to void.
func cutTypes(raw []byte, names map[string]bool) ([]byte, error) {
	b, err := parseTypes(raw)
	if err != nil {
		return nil, err
	}
	c := &btfCut{from: b, ids: map[uint32]uint32{0: 0}, names: map[uint32]uint32{0: 0}, strings: []byte{0}}
	for _, id := range b.named(names) {
		c.number(id)
	}
	for next := 0; next < len(c.wanted); next++ {
		if err := c.copy(c.wanted[next]); err != nil {
			return nil, err
		}
	}
	order := binary.LittleEndian
	header := make([]byte, btfHeaderSize)
	order.PutUint16(header, btfMagic)
	header[2] = 1
	order.PutUint32(header[4:], btfHeaderSize)
	order.PutUint32(header[12:], uint32(len(c.types)))
	order.PutUint32(header[16:], uint32(len(c.types)))
	order.PutUint32(header[20:], uint32(len(c.strings)))
	return slices.Concat(header, c.types, c.strings), nil
}

// btfCut is a subset of a btfBlob, with type ids of its own.
type btfCut struct {
	from           *btfBlob
	ids            map[uint32]uint32 // new ids by old ones
	wanted         []uint32          // old ids, in the order of the new ones
	names          map[uint32]uint32 // offsets in the new strings by those in the old ones
	types, strings []byte
}

// number is the id of a type in the subset, to which it is added if it is new.
func (c *btfCut) number(id uint32) uint32 {
	fresh, ok := c.ids[id]
	if !ok {
		c.wanted = append(c.wanted, id)
		fresh = uint32(len(c.wanted))
		c.ids[id] = fresh
	}
	return fresh
}

// name is the offset of a name in the subset's strings.
func (c *btfCut) name(old uint32) (uint32, error) {
	fresh, ok := c.names[old]
	if ok {
		return fresh, nil
	}
	if int(old) >= len(c.from.strings) {
		return 0, fmt.Errorf("%w: it has no name %d", errTypes, old)
	}
	fresh = uint32(len(c.strings))
	c.strings = append(append(c.strings, c.from.text(old)...), 0)
	c.names[old] = fresh
	return fresh, nil
}

func (c *btfCut) copy(id uint32) error {
	if int(id) >= len(c.from.offsets) {
		return fmt.Errorf("%w: it has no type %d", errTypes, id)
	}
	at := c.from.offsets[id]
	shape, size := c.from.shape(at)
	begin := len(c.types)
	c.types = append(c.types, c.from.types[at:int(at)+size]...)
	t := c.types[begin:]
	word := binary.LittleEndian
	renumber := func(where int) { word.PutUint32(t[where:], c.number(word.Uint32(t[where:]))) }
	rename := func(where int) error {
		name, err := c.name(word.Uint32(t[where:]))
		word.PutUint32(t[where:], name)
		return err
	}
	switch {
	case shape.pointer:
		word.PutUint32(t[8:], 0)
	case shape.refers:
		renumber(8)
	}
	for _, where := range shape.fixedType {
		renumber(btfTypeSize + where)
	}
	err := rename(0)
	for member := btfTypeSize + shape.fixed; member < size && err == nil; member += shape.member {
		for _, where := range shape.memberType {
			renumber(member + where)
		}
		if shape.named {
			err = rename(member)
		}
	}
	return err
}
