package convert

import (
	"strconv"
	"strings"
)

// matter is something that a file has and its copy may lack.
type matter uint8

const (
	// What a form may have no room for.
	packetComments matter = iota
	packetMarks
	otherPacketOptions
	interfaceBlocks
	statisticsBlocks
	sectionHeaders
	secretsBlocks
	nameBlocks
	customBlocks
	journalBlocks
	// What no copy has.
	verdicts
	uncopiedParts
	unknownOptions
	unknownBlocks
	largeBlocks
	laterSections
	damagedParts
	// What another value stands for.
	longPackets
	timelessPackets
	roundedTimes
	outsideTimes

	matters // how many there are
)

// matterTexts are the sentences about each matter.
var matterTexts = [matters]struct{ one, many string }{
	packetComments: roomless("packet comment", "packet comments"),
	packetMarks: roomless("packet id, direction, drop count or process",
		"packet ids, directions, drop counts and processes"),
	otherPacketOptions: roomless("other packet option", "other packet options"),
	interfaceBlocks:    roomless("interface description", "interface descriptions"),
	statisticsBlocks:   roomless("interface statistics block", "interface statistics blocks"),
	sectionHeaders:     roomless("section header", "section headers"),
	secretsBlocks:      roomless("block of decryption secrets", "blocks of decryption secrets"),
	nameBlocks:         roomless("name resolution block", "name resolution blocks"),
	customBlocks:       roomless("custom block", "custom blocks"),
	journalBlocks:      roomless("systemd journal entry", "systemd journal entries"),

	verdicts: leftOut("packet verdict", "packet verdicts",
		"editcap, mergecap and tshark -w make damaged files of verdicts"),
	uncopiedParts: leftOut("custom block or option", "custom blocks and options",
		"marked as not to be copied"),
	unknownOptions: leftOut("option of unknown meaning", "options of unknown meaning",
		"the file has the other byte order, and whether they are numbers is not known"),
	unknownBlocks: leftOut("block of unknown type", "blocks of unknown type",
		"interfaces have other numbers in the output"),
	largeBlocks: leftOut("block of more than 16 MiB", "blocks of more than 16 MiB",
		"Wireshark refuses files with such"),
	laterSections: leftOut("section header", "section headers",
		"the output has one section, and its header comes first"),
	damagedParts: leftOut("damaged block or option", "damaged blocks and options",
		"Wireshark refuses files with such"),

	longPackets: {
		"{n} packet cut to 262144 bytes: Wireshark refuses files that have longer ones",
		"{n} packets cut to 262144 bytes: Wireshark refuses files that have longer ones",
	},
	timelessPackets: {
		"{n} packet without a time: it has the one of 1970 now",
		"{n} packets without a time: they have the one of 1970 now",
	},
	roundedTimes: {
		"the time of {n} packet is rounded: {form} has no finer ones",
		"the times of {n} packets are rounded: {form} has no finer ones",
	},
	outsideTimes: {
		"the time of {n} packet is not its own: it is earlier or later than any that {form} has",
		"the times of {n} packets are not their own: they are earlier or later than any that {form} has",
	},
}

func roomless(one, many string) struct{ one, many string } {
	return struct{ one, many string }{
		"{n} " + one + " left out: {form} has no room for it",
		"{n} " + many + " left out: {form} has no room for them",
	}
}

func leftOut(one, many, why string) struct{ one, many string } {
	return struct{ one, many string }{"{n} " + one + " left out: " + why, "{n} " + many + " left out: " + why}
}

// Ledger counts what was left out of a copy, or is not the same there.
type Ledger [matters]uint64

func (l *Ledger) leave(m matter) { l[m]++ }

func (l *Ledger) add(other *Ledger) {
	for m, n := range other {
		l[m] += n
	}
}

// Omission is one kind of things that a copy lacks.
type Omission struct {
	// Count is how many there are.
	Count uint64
	// Expected says that the output's form has no room for them, which whoever
	// chose it may know.
	Expected bool

	matter matter
	form   string
}

// String is a sentence for people.
func (o Omission) String() string {
	text := matterTexts[o.matter].many
	if o.Count == 1 {
		text = matterTexts[o.matter].one
	}
	return strings.NewReplacer("{n}", strconv.FormatUint(o.Count, 10), "{form}", o.form).Replace(text)
}

// omissions lists what was counted.
func (l *Ledger) omissions(form string) (all []Omission) {
	for m, n := range l {
		if n > 0 {
			all = append(all, Omission{Count: n, Expected: matter(m) <= journalBlocks, matter: matter(m), form: form})
		}
	}
	return all
}
