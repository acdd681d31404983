package explain

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// digits formats a number with thousands separators.
func digits(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for at := len(s) - 3; at > 0; at -= 3 {
		s = s[:at] + "," + s[at:]
	}
	return s
}

// quantity is a number with its noun in singular or plural.
func quantity(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return digits(n) + " " + many
}

func bytesOf(n uint64) string   { return quantity(n, "byte", "bytes") }
func packetsOf(n uint64) string { return quantity(n, "packet", "packets") }
func readsOf(n uint64) string   { return quantity(n, "read", "reads") }
func peeksOf(n uint64) string   { return quantity(n, "peek", "peeks") }
func callsOf(n uint64) string   { return quantity(n, "call", "calls") }

// named lists the packets' ids: "packets 1-2, 5".
func (c Count) named() string {
	ids := c.IDs.String()
	if ids == "" {
		return packetsOf(c.Packets)
	}
	if c.Packets == 1 {
		return "packet " + ids
	}
	return "packets " + ids
}

// list joins words with commas and "and".
func list(words []string) string {
	switch len(words) {
	case 0:
		return ""
	case 1:
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

// String is the only value of the range, or both of its ends.
func (r Range) String() string {
	if r.Least == r.Most {
		return strconv.FormatInt(r.Least, 10)
	}
	return fmt.Sprintf("%d to %d", r.Least, r.Most)
}

// longest limits the bytes shown of a text from the file.
const longest = 1000

// printable is the beginning of a text from the file, with everything escaped that a
// terminal would act on.
func printable(s string) string {
	return terminal.Plain(shortened(s))
}

// shortened is the beginning of a text from the file as it is. Whoever shows it escapes it.
func shortened(s string) string {
	if len(s) > longest {
		s = strings.ToValidUTF8(s[:longest], "") + "..."
	}
	return s
}
