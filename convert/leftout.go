package convert

import (
	"strconv"
	"strings"
)

// detail is a kind of information that a file may have and its copy may lack.
type detail uint8

const (
	// What a format may have no room for.
	packetComments detail = iota
	packetMarks
	vlanTags
	packetMetadata
	flowMetadata
	stateMetadata
	receptions
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
	headlessPackets
	// What is in the copy with another value.
	longPackets
	longestPackets
	timelessPackets
	finestTimes
	roundedTimes
	outsideTimes

	details // how many there are
)

// detailTexts are the sentences about each detail.
var detailTexts = [details]struct{ one, many string }{
	packetComments: roomless("packet comment", "packet comments"),
	packetMarks: roomless("packet id, direction, drop count or process",
		"packet ids, directions, drop counts and processes"),
	vlanTags: roomless("VLAN tag beside the bytes", "VLAN tags beside the bytes"),
	packetMetadata: roomless("packet mark, priority or size of segments",
		"packet marks, priorities and sizes of segments"),
	flowMetadata: roomless("flow hash or queue number", "flow hashes and queue numbers"),
	stateMetadata: roomless("mark of a partial checksum or of bytes that are not linear",
		"marks of partial checksums and of bytes that are not linear"),
	receptions: roomless("buffer size, with flags and ancillary data of a call",
		"buffer sizes, with flags and ancillary data of calls"),
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
	headlessPackets: leftOut("packet without the header of its link type", "packets without the header of their link type",
		"Wireshark refuses files with such"),

	longPackets: {
		"{n} packet cut to 262144 bytes: Wireshark refuses files that have longer ones",
		"{n} packets cut to 262144 bytes: Wireshark refuses files that have longer ones",
	},
	longestPackets: {
		"{n} packet cut to " + longestBytes + " bytes: longer ones could not be read again",
		"{n} packets cut to " + longestBytes + " bytes: longer ones could not be read again",
	},
	timelessPackets: {
		"{n} packet without a time: it has the one of 1970 now",
		"{n} packets without a time: they have the one of 1970 now",
	},
	finestTimes: {
		"the time of {n} packet is in nanoseconds now: Wireshark refuses files with a unit as fine as it had",
		"the times of {n} packets are in nanoseconds now: Wireshark refuses files with a unit as fine as they had",
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

// longestBytes is longSnaplen in a sentence.
var longestBytes = strconv.Itoa(longSnaplen)

func roomless(one, many string) struct{ one, many string } {
	return struct{ one, many string }{
		"{n} " + one + " left out: {form} has no room for it",
		"{n} " + many + " left out: {form} has no room for them",
	}
}

func leftOut(one, many, why string) struct{ one, many string } {
	return struct{ one, many string }{"{n} " + one + " left out: " + why, "{n} " + many + " left out: " + why}
}

// omissionCounts counts, for each detail, what a copy lacks or has changed.
type omissionCounts [details]uint64

func (l *omissionCounts) leave(m detail) { l[m]++ }

func (l *omissionCounts) add(other *omissionCounts) {
	for m, n := range other {
		l[m] += n
	}
}

// Omission is a kind of information that a copy lacks or has changed.
type Omission struct {
	// Count is how often.
	Count uint64
	// Expected says that the format has no room for it, as its documentation says.
	Expected bool

	detail detail
	form   string
}

// String is a sentence for people.
func (o Omission) String() string {
	text := detailTexts[o.detail].many
	if o.Count == 1 {
		text = detailTexts[o.detail].one
	}
	return strings.NewReplacer("{n}", strconv.FormatUint(o.Count, 10), "{form}", o.form).Replace(text)
}

// What is what was left out, with its number, if the format has no room for it: the rest of the sentence is
// the same for all then.
func (o Omission) What() string {
	what, _, _ := strings.Cut(o.String(), " left out: ")
	return what
}

// omissions lists what was counted, for a format of that name.
func (l *omissionCounts) omissions(form string) (all []Omission) {
	for m, n := range l {
		if n > 0 {
			all = append(all, Omission{Count: n, Expected: detail(m) <= journalBlocks, detail: detail(m), form: form})
		}
	}
	return all
}
