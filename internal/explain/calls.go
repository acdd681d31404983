package explain

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
)

// Calls is what receiving calls said besides the bytes. Calls that only peeked do not count.
type Calls struct {
	// CutByBuffer counts those whose buffer had no room for the whole message.
	CutByBuffer uint64 `json:"cut_by_buffer"`
	// Coalesced counts those that returned several datagrams at once (UDP_GRO), at most
	// MostDatagrams.
	Coalesced     uint64 `json:"coalesced"`
	MostDatagrams uint64 `json:"most_datagrams"`
	// Ancillary counts those that returned ancillary data of each kind, such as
	// "IP_PKTINFO", and AncillaryCut those for whose ancillary data there was no room.
	Ancillary    map[string]uint64 `json:"ancillary,omitempty"`
	AncillaryCut uint64            `json:"ancillary_cut"`
	// Descriptors counts the file descriptors that came with them.
	Descriptors uint64 `json:"descriptors"`
	// Errors counts those that failed, by the name of the error, such as "ECONNREFUSED".
	Errors map[string]uint64 `json:"errors,omitempty"`
}

// kindsLimit bounds the kinds of ancillary data and of errors, of which a file can name any
// number. otherKinds is the name of the rest.
const (
	kindsLimit = 64
	otherKinds = "others"
)

func (c *Calls) empty() bool {
	return c.CutByBuffer+c.Coalesced+c.AncillaryCut == 0 && len(c.Ancillary)+len(c.Errors) == 0
}

// count counts a call.
func (c *Calls) count(p *capture.Packet) {
	r := &p.Reception
	if failed(p) {
		c.Errors = counted(c.Errors, p.Receipt.ErrnoName())
	}
	if r.Cut {
		c.CutByBuffer++
	}
	if n, _ := r.Datagrams(p.Got()); n > 1 {
		c.Coalesced++
		c.MostDatagrams = max(c.MostDatagrams, uint64(n))
	}
	if r.Flags&unix.MSG_CTRUNC != 0 {
		c.AncillaryCut++
	}
	c.Descriptors += uint64(r.Descriptors())
	for _, control := range r.Controls {
		c.Ancillary = counted(c.Ancillary, control.Name())
	}
}

func counted(counts map[string]uint64, name string) map[string]uint64 {
	if counts == nil {
		counts = make(map[string]uint64)
	}
	if _, known := counts[name]; !known && len(counts) >= kindsLimit {
		name = otherKinds
	}
	counts[name]++
	return counts
}

// listed lists counts by name.
func listed(counts map[string]uint64) string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		words = append(words, fmt.Sprintf("%s (%s)", shortened(name), digits(counts[name])))
	}
	return list(words)
}

// sayCalls says what the calls said.
func (o *Socket) sayCalls() Finding {
	f := Finding{Topic: "calls"}
	c := o.Calls
	if c == nil {
		return f
	}
	var words []string
	if c.CutByBuffer > 0 {
		f.Warning = true
		words = append(words, fmt.Sprintf("%s had no room for the whole message", quantity(c.CutByBuffer, "buffer", "buffers")))
	}
	if c.Coalesced > 0 {
		words = append(words, fmt.Sprintf("%s got several datagrams at once (UDP_GRO), at most %s", readsOf(c.Coalesced), digits(c.MostDatagrams)))
	}
	if len(c.Ancillary) > 0 {
		words = append(words, "ancillary data came with reads: "+listed(c.Ancillary))
	}
	if c.Descriptors > 0 {
		words = append(words, fmt.Sprintf("%s came with messages (SCM_RIGHTS)", quantity(c.Descriptors, "file descriptor", "file descriptors")))
	}
	if c.AncillaryCut > 0 {
		f.Warning = true
		words = append(words, fmt.Sprintf("the ancillary data of %s was cut (MSG_CTRUNC)", readsOf(c.AncillaryCut)))
	}
	if len(c.Errors) > 0 {
		words = append(words, "the errors of reads were "+listed(c.Errors))
	}
	f.Text = sentence(strings.Join(words, "; "))
	return f
}

// receptionText says into which buffer a read went, and with what else the message came.
func receptionText(r *capture.Reception) (text string) {
	if r.HasBuffer {
		text = " into a buffer of " + digits(uint64(r.Buffer))
	}
	var words []string
	for _, c := range r.Controls {
		words = append(words, fmt.Sprintf("%s (%s)", c.Name(), bytesOf(uint64(c.Len))))
	}
	if r.ControlRest > 0 {
		words = append(words, "more ancillary data")
	}
	// The comment speaks of these.
	rest := capture.Reception{Flags: r.Flags &^ unix.MSG_CTRUNC}
	if r.Cut {
		rest.Flags &^= unix.MSG_TRUNC
	}
	if names := rest.FlagNames(); len(names) > 0 {
		words = append(words, strings.Join(names, "|"))
	}
	if len(words) > 0 {
		text += " with " + list(words)
	}
	return text
}
