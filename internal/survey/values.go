package survey

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// fleeting are the fields whose values differ each time.
var fleeting = []string{"hash", "napi_id", "tstamp", "hwtstamp", "sk.dst_port"}

// accidental is a field with a value left over from an earlier packet, which no two runs
// agree on.
const accidental = "sk.rx_queue_mapping"

// single is what gso_segs holds in a packet that is one: 1 if a TCP socket sent it, and 0
// otherwise, also if what is left of a connection answered. Which of both sends the last ACK
// depends on how soon the other side closes.
const single = "0 or 1"

// shownValues limits the distinct values of a field that are listed.
const shownValues = 6

// describeValues lists the values of a field in all packets, in a form that is the same
// in every run.
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

// formatValue formats a value in its customary notation.
func formatValue(name string, v uint64) string {
	switch name {
	case "gso_segs":
		if v <= 1 {
			return single
		}
	case "protocol", "vlan_proto":
		// An EtherType in network byte order.
		b := networkBytes(v)
		return fmt.Sprintf("0x%x", b[:2])
	case "sk.src_ip4", "sk.dst_ip4":
		return netip.AddrFrom4(networkBytes(v)).String()
	case "sk.src_ip6[3]", "sk.dst_ip6[3]":
		return fmt.Sprintf("%x", networkBytes(v))
	}
	return strconv.FormatUint(v, 10)
}

// networkBytes returns the bytes of a 32-bit field in network byte order.
func networkBytes(v uint64) (b [4]byte) {
	binary.NativeEndian.PutUint32(b[:], uint32(v))
	return b
}
