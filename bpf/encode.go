package bpf

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// maxValue is the most bytes of a value that is set up.
const maxValue = 1 << 20

// parseValue reads JSON, an address in brackets, or else plain text.
func parseValue(text string) any {
	if strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[") || strings.HasPrefix(text, `"`) {
		if decoded, err := decodeJSON(text); err == nil {
			return decoded
		}
	}
	if inside, rest, ok := strings.Cut(strings.TrimPrefix(text, "["), "]"); ok && strings.HasPrefix(text, "[") {
		return inside + rest
	}
	return text
}

// encodeValue makes the bytes of a value as C has them. Without a type only its size is known.
func encodeValue(t btf.Type, size int, value any) ([]byte, error) {
	if size <= 0 || size > maxValue {
		return nil, setupErrorf("it has %d bytes, and from 1 to %d can be set", size, maxValue)
	}
	if t != nil {
		t = btf.UnderlyingType(t)
	}
	switch v := value.(type) {
	case bool:
		if v {
			return encodeInteger(t, size, "1")
		}
		return encodeInteger(t, size, "0")
	case json.Number:
		return encodeInteger(t, size, v.String())
	case string:
		return encodeText(t, size, v)
	case []any:
		return encodeList(t, size, v)
	case map[string]any:
		return encodeStruct(t, size, v)
	}
	return nil, setupErrorf("%v is no value for %s", value, described(t, size))
}

// described names a type for messages.
func described(t btf.Type, size int) string {
	switch t := t.(type) {
	case nil:
		return fmt.Sprintf("%d bytes", size)
	case *btf.Array:
		element := btf.UnderlyingType(t.Type)
		elementSize, _ := btf.Sizeof(element)
		return fmt.Sprintf("an array of %d times %s", t.Nelems, described(element, elementSize))
	case *btf.Int:
		return t.Name
	}
	return typeWords(t)
}

// sized is described with the size, where the name does not say it.
func sized(t btf.Type, size int) string {
	if t == nil {
		return described(t, size)
	}
	return described(t, size) + ", which has " + bytesWord(size)
}

func bytesWord(size int) string {
	if size == 1 {
		return "1 byte"
	}
	return fmt.Sprintf("%d bytes", size)
}

// isNumberSize tells whether a number can have so many bytes.
func isNumberSize(size int) bool { return size == 1 || size == 2 || size == 4 || size == 8 }

// allowed says for messages what can be given for a value.
func allowed(t btf.Type, size int) string {
	hexadecimal := fmt.Sprintf("hex= and all of its %s, two digits each", bytesWord(size))
	var members []btf.Member
	switch t := t.(type) {
	case *btf.Struct:
		members = t.Members
	case *btf.Union:
		members = t.Members
	case *btf.Array:
		if isChar(t) {
			return fmt.Sprintf("give a text of up to %s, or %s", bytesWord(size), hexadecimal)
		}
		return "give a list such as [1,2], or " + hexadecimal
	}
	if len(members) > 0 {
		return fmt.Sprintf(`give its fields, such as {"%s":1}, or %s`, members[0].Name, hexadecimal)
	}
	if !isNumberSize(size) {
		return "give " + hexadecimal
	}
	bits := 8 * size
	form := fmt.Sprintf("give a whole number from %d to %d (0x for hexadecimal), or %s", int64(-1)<<(bits-1), uint64(math.MaxUint64)>>(64-bits), hexadecimal)
	if enum, ok := t.(*btf.Enum); ok {
		const shown = 8
		var names []string
		for _, v := range enum.Values[:min(len(enum.Values), shown)] {
			names = append(names, v.Name)
		}
		form += ", or a name such as " + strings.Join(names, ", ")
	}
	return form
}

// parseInteger parses a whole number. Its sign is -1 or 1, and large says that it has more than 64 bits.
func parseInteger(text string) (n uint64, sign int, large, ok bool) {
	n, err := strconv.ParseUint(text, 0, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) {
		return n, 1, err != nil, true
	}
	signed, err := strconv.ParseInt(text, 0, 64)
	return uint64(signed), -1, errors.Is(err, strconv.ErrRange), err == nil || errors.Is(err, strconv.ErrRange)
}

func encodeInteger(t btf.Type, size int, text string) ([]byte, error) {
	n, sign, large, ok := parseInteger(text)
	switch t.(type) {
	case nil, *btf.Int, *btf.Enum, *btf.Pointer:
	default:
		if !ok {
			return nil, setupErrorf("%q is no value for %s: %s", text, sized(t, size), allowed(t, size))
		}
		return nil, setupErrorf("%s is a number, and it is to be %s: %s", text, sized(t, size), allowed(t, size))
	}
	switch {
	case !ok:
		return nil, setupErrorf("%q is no number for %s: %s", text, sized(t, size), allowed(t, size))
	case !isNumberSize(size):
		return nil, setupErrorf("%s is a number, and it has %d bytes: give hex= and all of them, or JSON", text, size)
	case sign > 0 && (large || size < 8 && n>>(8*size) != 0):
		return nil, setupErrorf("%s is too large for %s: %s", text, sized(t, size), allowed(t, size))
	case sign < 0 && (large || size < 8 && int64(n) < -1<<(8*size-1)):
		return nil, setupErrorf("%s is too small for %s: %s", text, sized(t, size), allowed(t, size))
	}
	b := make([]byte, 8)
	switch size {
	case 1:
		b[0] = byte(n)
	case 2:
		binary.NativeEndian.PutUint16(b, uint16(n))
	case 4:
		binary.NativeEndian.PutUint32(b, uint32(n))
	default:
		binary.NativeEndian.PutUint64(b, n)
	}
	return b[:size], nil
}

// hostOrder is the number in up to 8 bytes.
func hostOrder(b []byte) uint64 {
	switch len(b) {
	case 4:
		return uint64(binary.NativeEndian.Uint32(b))
	case 8:
		return binary.NativeEndian.Uint64(b)
	}
	return 0
}

func isChar(t btf.Type) bool {
	array, ok := t.(*btf.Array)
	if !ok {
		return false
	}
	element, ok := btf.UnderlyingType(array.Type).(*btf.Int)
	return ok && element.Size == 1 && element.Name == "char"
}

func encodeText(t btf.Type, size int, text string) ([]byte, error) {
	if digits, ok := strings.CutPrefix(text, "hex="); ok {
		b, err := hex.DecodeString(digits)
		if err != nil || len(b) != size {
			return nil, setupErrorf("%s is not %d bytes, two hexadecimal digits each", text, size)
		}
		return b, nil
	}
	if isChar(t) {
		if len(text) > size {
			return nil, setupErrorf("%q has more than %d characters", text, size)
		}
		return append([]byte(text), make([]byte, size-len(text))...), nil
	}
	if b := addressBytes(text); b != nil {
		if len(b) != size {
			return nil, setupErrorf("%s has %d bytes, and %s %d: %s", text, len(b), described(t, size), size, allowed(t, size))
		}
		return b, nil
	}
	if enum, ok := t.(*btf.Enum); ok {
		for _, v := range enum.Values {
			if v.Name == text {
				return encodeInteger(t, size, strconv.FormatUint(v.Value&(math.MaxUint64>>(64-8*min(size, 8))), 10))
			}
		}
	}
	if text == "true" || text == "false" {
		return encodeValue(t, size, text == "true")
	}
	return encodeInteger(t, size, text)
}

// addressBytes are those of an address, in network byte order, with the prefix before it as a prefix
// map has it; nil if it is none.
func addressBytes(text string) []byte {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		return a.AsSlice()
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		return append(binary.NativeEndian.AppendUint32(nil, uint32(p.Bits())), p.Addr().AsSlice()...)
	}
	if mac, err := net.ParseMAC(text); err == nil && len(mac) == 6 {
		return mac
	}
	return nil
}

func encodeList(t btf.Type, size int, list []any) ([]byte, error) {
	array, ok := t.(*btf.Array)
	if !ok || len(list) == size && bytesOf(list) != nil {
		b := bytesOf(list)
		if b == nil || len(list) != size {
			return nil, setupErrorf("a list of %d is no value for %s", len(list), described(t, size))
		}
		return b, nil
	}
	if len(list) > int(array.Nelems) {
		return nil, setupErrorf("a list of %d is too long for %s", len(list), described(t, size))
	}
	element, err := btf.Sizeof(array.Type)
	if err != nil || element*int(array.Nelems) > size {
		return nil, setupErrorf("%s has no known size", described(t, size))
	}
	b := make([]byte, 0, size)
	for _, v := range list {
		one, err := encodeValue(array.Type, element, v)
		if err != nil {
			return nil, err
		}
		b = append(b, one...)
	}
	return append(b, make([]byte, size-len(b))...), nil
}

// bytesOf are the bytes of a list as bpftool prints it; nil if it is another one.
func bytesOf(list []any) []byte {
	b := make([]byte, 0, len(list))
	for _, v := range list {
		n, err := strconv.ParseUint(fmt.Sprint(v), 0, 8)
		if err != nil {
			return nil
		}
		b = append(b, byte(n))
	}
	return b
}

func encodeStruct(t btf.Type, size int, fields map[string]any) ([]byte, error) {
	var members []btf.Member
	switch t := t.(type) {
	case *btf.Struct:
		members = t.Members
	case *btf.Union:
		members = t.Members
	default:
		return nil, setupErrorf("an object with fields is no value for %s", described(t, size))
	}
	b := make([]byte, size)
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		at := slices.IndexFunc(members, func(m btf.Member) bool { return m.Name == name })
		if at < 0 {
			return nil, setupErrorf("%s has no field %s", described(t, size), name)
		}
		m := members[at]
		length, err := btf.Sizeof(m.Type)
		offset := int(m.Offset.Bytes())
		if err != nil || m.BitfieldSize > 0 || offset < 0 || length < 0 || offset+length > size {
			return nil, setupErrorf("the field %s is not made of whole bytes: give hex= and all bytes", name)
		}
		one, err := encodeValue(m.Type, length, fields[name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		copy(b[offset:], one)
	}
	return b, nil
}
