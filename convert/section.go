package convert

import (
	"math"
	"strings"
)

// Section describes a whole file. Every field may be empty.
type Section struct {
	// Hardware is the machine's architecture, as uname -m prints it.
	Hardware string
	// OS is the name and version of the operating system.
	OS string
	// Application is the name and version of the program that captured.
	Application string
	// Comment is a free text, such as the command line.
	Comment string
}

// fileSection is a section header of another file.
type fileSection struct {
	Section
	options options
}

// readSection parses the options of a section header.
func readSection(o options) *fileSection {
	s := &fileSection{options: o}
	s.Comment = o.comments()
	for code, value, ok := o.next(); ok; code, value, ok = o.next() {
		switch code {
		case sectionHardware:
			s.Hardware = optionText(value)
		case sectionOS:
			s.OS = optionText(value)
		case sectionApplication:
			s.Application = optionText(value)
		}
	}
	return s
}

// appendSection appends a section header (section 4.1 of the draft), with what the
// headers of copied files add to it: all their comments, each as an option of its own,
// the options of other programs, and the machine if section does not name it.
func appendSection(b []byte, section Section, from []*fileSection, left *omissionCounts) []byte {
	start := len(b)
	b = beginBlock(b, blockSection)
	b = order.AppendUint32(b, byteOrderMagic)
	b = order.AppendUint32(b, 1)              // version 1.0
	b = order.AppendUint64(b, math.MaxUint64) // of unknown length
	empty := len(b)
	b = appendOptionIf(b, sectionApplication, section.Application)
	for _, f := range from {
		if len(b)+len(f.options.bytes) > largestBlock/2 {
			left.leave(laterSections)
			continue
		}
		b = appendForeign(b, &sectionOptions, f.options, left, func(b []byte, code uint16, _ []byte) ([]byte, bool) {
			return b, code == sectionApplication || code == sectionHardware || code == sectionOS
		})
		if section.Hardware == "" {
			section.Hardware = f.Hardware
		}
		if section.OS == "" {
			section.OS = f.OS
		}
		b = appendOptionIf(b, optionComment, f.recorded(section))
	}
	b = appendOptionIf(b, optionComment, section.Comment)
	b = appendOptionIf(b, sectionHardware, section.Hardware)
	b = appendOptionIf(b, sectionOS, section.OS)
	if len(b) > empty {
		b = appendEndOfOptions(b)
	}
	return endBlock(b, start)
}

// recorded makes a comment of what the header of a copied file says and the copy's does
// not.
func (f *fileSection) recorded(copy Section) string {
	var parts []string
	if name, _, _ := strings.Cut(copy.Application, " "); f.Application != "" && !strings.HasPrefix(f.Application, name+" ") {
		parts = append(parts, "recorded by "+f.Application)
	}
	for _, of := range [][2]string{{f.OS, copy.OS}, {f.Hardware, copy.Hardware}} {
		if of[0] != of[1] && of[0] != "" {
			parts = append(parts, "recorded on "+of[0])
		}
	}
	return strings.Join(parts, ", ")
}

func appendOptionIf(b []byte, code uint16, value string) []byte {
	if value == "" {
		return b
	}
	return appendOption(b, code, value)
}
