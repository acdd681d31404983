package convert

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/ebpfdump/ebpfdump/capture"
)

// Number is the number of an interface in its file, counted from 0, as Wireshark's frame.interface_id.
// It is false for interfaces of other files and of formats that do not number them.
func (s *Source) Number(i *capture.Interface) (n int, ok bool) {
	if r, is := s.Reader.(*pcapngReader); is {
		n, ok = r.numbers[i]
	}
	return n, ok
}

// Has tells whether one of some names is that of an interface, or one of some numbers is its number in
// this file.
func (s *Source) Has(i *capture.Interface, names []string) bool {
	if slices.Contains(names, i.Name()) {
		return true
	}
	n, ok := s.Number(i)
	return ok && slices.Contains(names, strconv.Itoa(n))
}

// InterfaceNames lists the interfaces in the part of the file that was read: number and name.
func (s *Source) InterfaceNames() (all []string) {
	for _, i := range s.Interfaces() {
		n, _ := s.Number(i)
		name := i.Name()
		if name == "" {
			name = "without a name"
		}
		all = append(all, fmt.Sprintf("%d (%s)", n, name))
	}
	return all
}
