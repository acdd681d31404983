package survey

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// fleeting are the fields whose values are other ones each time.
var fleeting = []string{"hash", "napi_id", "tstamp", "hwtstamp", "sk.dst_port"}

// accidental is a field that holds what the last packet happened to leave
// there: no two runs agree on it.
const accidental = "sk.rx_queue_mapping"

// shownValues is how many different values of a field are named.
const shownValues = 6

// describeValues tells what a field held in all packets, in a way that is the
// same in the next run.
func describeValues(name string, held []uint64) string {
	held = slices.Clone(held)
	slices.Sort(held)
	held = slices.Compact(held)
	var words []string
	for _, v := range held {
		word := formatValue(name, v)
		if slices.Contains(fleeting, name) && v != 0 {
			word = "set"
		}
		if !slices.Contains(words, word) {
			words = append(words, word)
		}
	}
	if len(words) > shownValues {
		return fmt.Sprintf("%s and %d more", strings.Join(words[:shownValues], ", "), len(words)-shownValues)
	}
	return strings.Join(words, ", ")
}

// formatValue prints a value as people write such values.
func formatValue(name string, v uint64) string {
	switch name {
	case "protocol", "vlan_proto":
		// An ethertype in network byte order.
		b := networkBytes(v)
		return fmt.Sprintf("0x%x", b[:2])
	case "sk.src_ip4", "sk.dst_ip4":
		return netip.AddrFrom4(networkBytes(v)).String()
	case "sk.src_ip6[3]", "sk.dst_ip6[3]":
		return fmt.Sprintf("%x", networkBytes(v))
	}
	return strconv.FormatUint(v, 10)
}

// networkBytes are the bytes of a field of 32 bits in network byte order.
func networkBytes(v uint64) (b [4]byte) {
	binary.NativeEndian.PutUint32(b[:], uint32(v))
	return b
}
