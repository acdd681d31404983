package bpf

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"slices"
	"sort"
	"strconv"
)

// symbols finds the functions of the running kernel by address.
type symbols struct {
	addresses []uint64 // in order
	names     []uint32 // where the name begins in text, in the same order
	text      []byte   // names, each with a zero behind it
}

// readSymbols reads the kernel's table of symbols. Without the privilege to read addresses, which
// is CAP_SYSLOG where kernel.kptr_restrict is set, there are none.
func readSymbols() *symbols {
	table, err := os.Open("/proc/kallsyms")
	if err != nil {
		return &symbols{}
	}
	defer table.Close()
	return parseSymbols(table)
}

// parseSymbols keeps functions of lines such as "ffffffff81000000 T _stext", of which modules'
// have a name in brackets behind.
func parseSymbols(table io.Reader) *symbols {
	s := &symbols{}
	for lines := bufio.NewScanner(table); lines.Scan(); {
		fields := bytes.Fields(lines.Bytes())
		if len(fields) < 3 || len(fields[1]) != 1 || !bytes.ContainsAny(fields[1], "tTwW") || !isSymbol(fields[2]) {
			continue
		}
		address, err := strconv.ParseUint(string(fields[0]), 16, 64)
		if err != nil || address == 0 {
			continue
		}
		s.addresses = append(s.addresses, address)
		s.names = append(s.names, uint32(len(s.text)))
		s.text = append(append(s.text, fields[2]...), 0)
	}
	// Those of modules come behind the others, and none of those is in the middle of another.
	if !slices.IsSorted(s.addresses) {
		sort.Stable(s)
	}
	return s
}

// isSymbol tells whether all of a name may be printed.
func isSymbol(name []byte) bool {
	return !slices.ContainsFunc(name, func(c byte) bool {
		return c != '_' && c != '.' && c != '$' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
	})
}

// at is the name of the function with the instruction before an address, as a return address is
// one behind a call; empty if there is none.
func (s *symbols) at(address uint64) string {
	if s == nil || address == 0 {
		return ""
	}
	i := sort.Search(len(s.addresses), func(i int) bool { return s.addresses[i] >= address })
	// An address that is far behind the last function is in none.
	if i == 0 || address-s.addresses[i-1] > 1<<20 {
		return ""
	}
	name, _, _ := bytes.Cut(s.text[s.names[i-1]:], []byte{0})
	return string(name)
}

// Len, Less and Swap are for sorting.
func (s *symbols) Len() int           { return len(s.addresses) }
func (s *symbols) Less(i, j int) bool { return s.addresses[i] < s.addresses[j] }
func (s *symbols) Swap(i, j int) {
	s.addresses[i], s.addresses[j] = s.addresses[j], s.addresses[i]
	s.names[i], s.names[j] = s.names[j], s.names[i]
}
