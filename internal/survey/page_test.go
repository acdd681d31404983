package survey

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// invented is a report that needs no kernel: one row of each status.
func invented() *Report {
	return &Report{
		Schema: Schema,
		System: System{Kernel: "6.0.0", Machine: "x86_64", Program: "test"},
		Fields: []Field{{Name: "len", Readable: true}, {Name: "data"}},
		Sockets: []Socket{
			{
				Name: "udp", Summary: "UDP socket", Status: Filtered,
				Headers: []string{"Ethernet", "IPv4", "UDP", payload}, Offset0: "UDP", Directions: []string{"in"},
				Exchange:  []Exchanged{{"datagram", toSocket, "all"}},
				Below:     &Below{ReachedBytes, ReachedBytes, ReachedBytes, ReachedBytes},
				Userspace: &Userspace{From: payload, Missing: []string{"UDP"}, MissingFront: 8},
				Verdicts:  []Outcome{{Keep: 0, Probe: "ok"}, {Keep: 8, Messages: 1, Probe: "ok"}, {Keep: -1, Messages: 1, Bytes: 11, Probe: "ok"}},
				Empty:     &Empty{Filter: 8, Messages: 1},
				Held:      map[string]string{"len": "19"},
			},
			{Name: "unix-stream", Status: Unfiltered, Headers: []string{payload}, Userspace: &Userspace{From: payload}},
			{Name: "mptcp", Status: Refused, Reason: "SO_ATTACH_BPF: EOPNOTSUPP"},
			{Name: "sctp", Status: Absent, Reason: "socket: <E&>"},
			{Name: "vsock", Status: Unprobed, Reason: "ETIMEDOUT"},
		},
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	reports := []*Report{invented(), {}}
	if t.Run("real", func(t *testing.T) { reports = append(reports, mustSurvey(t)) }) {
		for _, r := range reports {
			var b strings.Builder
			if err := r.WriteText(&b); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(b.String()) {
				if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > textWidth {
					t.Errorf("%d columns: %s", n, line)
				}
				if strings.HasSuffix(line, " \n") {
					t.Errorf("space at the end of %q", line)
				}
			}
		}
	}
	var b strings.Builder
	if err := invented().WriteText(&b); err != nil {
		t.Fatal(err)
	}
	const table = `SOCKET          OFFSET 0  RELATIVE   ABSOLUTE   SEES    USERSPACE GETS   KEEP 8
udp             UDP       net, link  net, link  in      all but UDP      0 bytes
unix-stream     takes a filter, never runs it; userspace gets the payload
mptcp           takes no filter (SO_ATTACH_BPF: EOPNOTSUPP)
sctp            not on this kernel (socket: <E&>)
vsock           takes a filter, could not be probed (ETIMEDOUT)
`
	if !strings.Contains(b.String(), table) {
		t.Errorf("not in the text:\n%s\nbut:\n%s", table, b.String())
	}
	for _, want := range []string{
		"- Offset 0 is the transport header: the network header is not among the filter's\n  bytes. [udp]\n",
		"- The socket takes no filter. [mptcp]\n",
		"  CONFIRMED: udp: offset 0 is the UDP header\n",
		"  NOT TRIED: ",
		"- readable: len\n- refused by the verifier: data\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in the text:\n%s", want, b.String())
		}
	}
}

// Every conclusion names rows, and only existing ones.
func TestConclusions(t *testing.T) {
	t.Parallel()
	r := mustSurvey(t)
	conclusions := r.Conclusions()
	if len(conclusions) < 15 {
		t.Errorf("only %d conclusions", len(conclusions))
	}
	for _, c := range conclusions {
		for _, row := range c.Rows {
			if _, ok := r.Socket(row); !ok {
				t.Errorf("%s: there is no row %s", c, row)
			}
		}
		if len(c.Rows) == 0 {
			t.Errorf("%s stands on nothing", c)
		}
	}
	if none := (&Report{}).Conclusions(); len(none) != 0 {
		t.Errorf("conclusions from nothing: %v", none)
	}
}

// The page is well-formed and self-contained.
func TestHTML(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := invented().WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	if outside := regexp.MustCompile(`(?i)https?:|src=|url\(|@import|<script|<link`).FindString(page); outside != "" {
		t.Errorf("the page needs %s", outside)
	}
	for _, want := range []string{
		`<g class="below"><rect x="118"`, `<g class="filter">`, `<g class="both">`, `<g class="user">`,
		"prefers-color-scheme: dark", "socket: &lt;E&amp;&gt;", "Linux 6.0.0",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in the page", want)
		}
	}
	decoder := xml.NewDecoder(&b)
	for {
		_, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("the page is not well formed: %v", err)
		}
	}
}

func TestMarkdown(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	if err := invented().WriteMarkdown(&b); err != nil {
		t.Fatal(err)
	}
	columns := 0
	for line := range strings.Lines(b.String()) {
		if !strings.HasPrefix(line, "|") {
			columns = 0
			continue
		}
		n := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|")
		if columns != 0 && n != columns {
			t.Errorf("a row of another width: %s", line)
		}
		columns = n
	}
	for _, want := range []string{"| udp | UDP | net, link | net, link | in | all but UDP |  |", `| mptcp | takes no filter (SO\_ATTACH\_BPF: EOPNOTSUPP) |`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in the page:\n%s", want, b.String())
		}
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	before, after := invented(), invented()
	after.System.Kernel = "7.0.0"
	if differences, err := Compare(before, after); err != nil || len(differences) != 0 {
		t.Errorf("the same on another system: %v, %v", differences, err)
	}
	after.Fields[1].Readable = true
	after.Sockets[0].Offset0 = "IPv4"
	after.Sockets[0].Verdicts[1].Bytes = 8
	after.Sockets[0].Exchange[0].Filter = "none"
	after.Sockets[0].Below = nil
	after.Sockets[1].Status = Absent
	after.Sockets = after.Sockets[:4]
	differences, err := Compare(before, after)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, d := range differences {
		lines = append(lines, d.String())
	}
	want := []string{
		"fields data readable: false -> true",
		"udp below legacy_link: reached -> nothing",
		"udp below legacy_net: reached -> nothing",
		"udp below relative_link: reached -> nothing",
		"udp below relative_net: reached -> nothing",
		"udp exchange datagram to socket filter: all -> none",
		"udp offset0: UDP -> IPv4",
		"udp verdicts keep 8 bytes: 0 -> 8",
		"unix-stream status: unfiltered -> absent",
		"vsock reason: ETIMEDOUT -> nothing",
		"vsock status: unprobed -> nothing",
	}
	if got := strings.Join(lines, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("differences\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

func TestRows(t *testing.T) {
	t.Parallel()
	rows, err := RowsByName([]string{"udp", "raw", "raw6/icmp"})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(rowNames(rows), " "); got != "raw/tcp raw/udp raw/icmp raw6/icmp udp" {
		t.Errorf("rows %s", got)
	}
	if _, err := RowsByName([]string{"udp", "tpc"}); err == nil || !strings.Contains(err.Error(), `"tpc"`) {
		t.Errorf("a kind that is none: %v", err)
	}
}
