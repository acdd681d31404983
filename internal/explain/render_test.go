package explain

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/ebpfdump/ebpfdump/convert"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

func convertSection(application string) convert.Section {
	return convert.Section{Application: application}
}

func TestText(t *testing.T) {
	t.Parallel()
	testutil.Golden(t, "testdata/conversation.txt", text(t, conversation().explain(t), false))
}

// The commands that made a file stand behind each other, and what other programs wrote into its comment is set off.
func TestMadeBy(t *testing.T) {
	t.Parallel()
	for comment, want := range map[string]string{
		"":                                     "",
		"ebpfdump capture -o a":                "ebpfdump capture -o a",
		"ebpfdump capture\nebpfdump convert a": "ebpfdump capture; then ebpfdump convert a",
		"ebpfdump capture\n\n  File created by merging:\nFile1: a.pcapng \nebpfdump convert a\n": "ebpfdump capture | File created by merging: | File1: a.pcapng; then ebpfdump convert a",
		"\nFile created by merging:": "File created by merging:",
		"ebpfdumper\nebpfdumper":     "ebpfdumper | ebpfdumper",
		"ebpfdump capture\n\x1b[2Jx": `ebpfdump capture | \x1b[2Jx`,
	} {
		r := newRecording()
		r.section.Comment = comment
		r.datagram("0123456789\n")
		e := r.explain(t)
		equal(t, fmt.Sprintf("%q", comment), e.Report.command(), want)
		for _, columns := range []int{Columns, leastColumns} {
			var b strings.Builder
			if err := e.WriteText(&b, false, columns); err != nil {
				t.Fatal(err)
			}
			said := strings.Join(strings.Fields(b.String()), " ")
			equal(t, fmt.Sprintf("%q is said", comment), strings.Contains(said, "made by: "+strings.Join(strings.Fields(want), " ")), want != "")
		}
	}
}

// Colours change nothing else, and every layer has a different one.
func TestColours(t *testing.T) {
	t.Parallel()
	e := conversation().explain(t)
	coloured := text(t, e, true)
	bare := regexp.MustCompile("\x1b\\[[0-9;]*m").ReplaceAllString(coloured, "")
	equal(t, "text", bare, text(t, e, false))
	wants(t, coloured, "\x1b[33mTCP ")
	wants(t, coloured, "\x1b[1;32mread 1")
}

// hostile is a capture whose texts contain markup and control characters.
func hostile() *recording {
	const evil = "\x1b]0;owned\a\r\u202e<script>alert(1)</script>\"'&{{.}}\u0085"
	r := newRecording()
	r.section = convert.Section{Application: "ebpfdump" + evil, OS: evil, Hardware: evil, Comment: evil + strings.Repeat("x", 500)}
	kernel, user := *udpKernel, *udpUser
	kernel.Kind, user.Kind = evil, evil
	kernel.Description, user.Description = evil+synthetic, evil
	r.datagram("\x1b[2J\x00\xff").Comment = evil
	r.packets[0].Interface = &kernel
	p := r.read(&user, 1, "\x1b[2J\x00\xff")
	p.Call, p.Comment = evil, evil
	return r
}

func TestHostileTexts(t *testing.T) {
	t.Parallel()
	e := explained(t, hostile().file(t), Options{Packets: -1, Name: "\x1b[2Jfile<b>"})
	checkText(t, text(t, e, false))
	checkPage(t, pageOf(t, e))
	var data strings.Builder
	if err := e.WriteJSON(&data); err != nil {
		t.Fatal(err)
	}
	for _, r := range data.String() {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("%U is in the JSON", r)
		}
	}
	var back Report
	if err := json.Unmarshal([]byte(data.String()), &back); err != nil {
		t.Fatal(err)
	}
	equal(t, "kind", back.Sockets[0].Kind, e.Report.Sockets[0].Kind)
	if page := pageOf(t, e); strings.Contains(page, "<script") || strings.Contains(page, "<b>file") {
		t.Error("markup of the file is in the page")
	}
}

// checkText requires that there are no control characters, and that lines have at most 80
// columns.
func checkText(t *testing.T, text string) {
	t.Helper()
	for line := range strings.SplitSeq(text, "\n") {
		if n := utf8.RuneCountInString(line); n > Columns {
			t.Errorf("%d columns: %s", n, line)
		}
		for _, r := range line {
			if !unicode.IsPrint(r) {
				t.Errorf("%q has %U", line, r)
			}
		}
	}
}

var loads = regexp.MustCompile(`(?i)(src|href|srcset|data|action|poster)\s*=|url\(|@import`)

// checkPage requires well-formed elements, nothing that a browser would fetch, and no
// scripts.
func checkPage(t *testing.T, page string) {
	t.Helper()
	decoder := xml.NewDecoder(strings.NewReader(page))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the page is not well-formed: %v", err)
		}
		if element, ok := token.(xml.StartElement); ok {
			name := element.Name.Local
			if name == "script" || name == "link" || name == "img" || name == "iframe" || name == "use" {
				t.Errorf("an element %s", name)
			}
			for _, a := range element.Attr {
				if attribute := a.Name.Local + "="; loads.MatchString(attribute) || loads.MatchString(a.Value) {
					t.Errorf("an attribute %s%q", attribute, a.Value)
				}
			}
		}
	}
	style := page[strings.Index(page, "<style>"):strings.Index(page, "</style>")]
	if loads.MatchString(style) || strings.Contains(style, "http") {
		t.Error("the style sheet loads something")
	}
}

func TestPage(t *testing.T) {
	t.Parallel()
	page := pageOf(t, conversation().explain(t))
	checkPage(t, page)
	if strings.Contains(page, "http://") || strings.Contains(page, "https://") {
		t.Error("the page names another place")
	}
	for _, part := range []string{"<svg viewBox=", "packet 3", "prefers-color-scheme: dark", "@media print", "read 1"} {
		wants(t, page, part)
	}
	// One of each packet, and a time line.
	equal(t, "drawings", strings.Count(page, "<svg "), 9+1)
}

func TestWriteErrors(t *testing.T) {
	t.Parallel()
	e := conversation().explain(t)
	if err := e.WriteText(brokenWriter{}, false, Columns); !errors.Is(err, errBroken) {
		t.Errorf("text: %v", err)
	}
	if err := e.WriteHTML(brokenWriter{}); !errors.Is(err, errBroken) {
		t.Errorf("page: %v", err)
	}
	if err := e.WriteJSON(brokenWriter{}); !errors.Is(err, errBroken) {
		t.Errorf("JSON: %v", err)
	}
}

// Boxes and bars stay within the drawing, whatever the sizes.
func TestLayerMap(t *testing.T) {
	t.Parallel()
	g := &shown{
		length: 70000, kernel: true, offset0: 34,
		spans:  []span{{"Ethernet", classLink, 0, 14}, {"IPv4", classNetwork, 14, 34}, {"TCP", classTransport, 34, 66}, {"payload", classPayload, 66, 69990}, {"padding", classPayload, 69990, 70000}},
		covers: []cover{{1, 34, 70000}, {4, 0, 70000}},
	}
	for i := range 12 {
		g.parts = append(g.parts, part{read: uint64(i + 1), from: 66 + i*100, length: 100})
	}
	m := g.draw()
	equal(t, "boxes", len(m.Boxes), 5)
	equal(t, "bars", len(m.Bars), 2+mapBars)
	equal(t, "more", m.More, "and 4 reads more")
	for _, b := range m.Boxes {
		if b.X < mapLeft || b.W < leastWidth || b.X+b.W > mapWidth-mapRight {
			t.Errorf("box %+v", b)
		}
	}
	for _, b := range m.Bars {
		if b.X < mapLeft || b.W < 1 || b.X+b.W > mapWidth-mapRight+2 || b.Y+barHeight > m.Height {
			t.Errorf("bar %+v", b)
		}
	}
	equal(t, "kernel bar", m.Bars[1].X, m.Boxes[2].X)
}

// The names and kinds of all fields are a promise: a change needs a new Version.
func TestReportForm(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	fmt.Fprintf(&b, "version %d\n", Version)
	form(&b, reflect.TypeFor[Report](), "")
	testutil.Golden(t, "testdata/report.form", b.String())
}

// form lists the paths in a type's JSON with their kinds.
func form(b *strings.Builder, typ reflect.Type, path string) {
	switch typ.Kind() {
	case reflect.Pointer:
		form(b, typ.Elem(), path+"?")
		return
	case reflect.Slice:
		form(b, typ.Elem(), path+"[]")
		return
	case reflect.Struct:
	default:
		fmt.Fprintf(b, "%s %s\n", path, typ.Kind())
		return
	}
	if typ == reflect.TypeFor[IDs]() {
		fmt.Fprintf(b, "%s.ranges[][2] uint64\n%[1]s.omitted uint64\n", path)
		return
	}
	if typ.PkgPath() == "time" {
		fmt.Fprintf(b, "%s time\n", path)
		return
	}
	for i := range typ.NumField() {
		name, options, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		if options == "omitempty" {
			name += "?"
		}
		form(b, typ.Field(i).Type, path+"."+name)
	}
}

func TestReportJSON(t *testing.T) {
	t.Parallel()
	var indented, compact bytes.Buffer
	if err := conversation().explain(t).WriteJSON(&indented); err != nil {
		t.Fatal(err)
	}
	if err := json.Compact(&compact, indented.Bytes()); err != nil {
		t.Fatal(err)
	}
	encoded := compact.Bytes()
	wants(t, string(encoded), `"handshake":{"packets":2,"bytes":0,"ids":{"ranges":[[1,2]],"omitted":0}}`)
	wants(t, string(encoded), `"rst":{"packets":0,"bytes":0,"ids":{"ranges":[],"omitted":0}}`)
	wants(t, string(encoded), `"start":"2026-11-05T12:00:00Z","duration_ns":13000`)
	if bytes.Contains(encoded, []byte("null")) {
		t.Error("there is a null")
	}
}
