package explain

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strconv"
)

//go:embed page.html.tmpl
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// page is the data of the template. All texts from the file are printable.
type page struct {
	Report  *Report
	Title   string
	Summary string
	Command string
	Damage  string
	CutOff  string
	Foreign string
	Sockets []pageSocket
	Groups  []pageGroup
	// Bytes says which packets' bytes are there, Left which connections and LeftOut which packets are not.
	Bytes, Left, LeftOut string
	// Kernel and User say that there are such views, Below that a view begins before the
	// kernel view.
	Kernel, User, Below bool
	// Peeked says that there are peeks, and Departed that there are packets of the cgroup view that were sent.
	Peeked, Departed bool
}

type pageSocket struct {
	Kind, Summary string
	Figures       []figure
	Findings      []Finding
}

// figure is a number to be printed large, with a caption.
type figure struct{ Number, Text string }

// WriteHTML writes the explanation as a self-contained page.
func (e *Explanation) WriteHTML(w io.Writer) error {
	r := &e.Report
	p := page{
		Report: r, Title: printable(r.File), Summary: r.summary(), Command: r.command(),
		Damage: printable(r.Damage), CutOff: r.cutOff(), Foreign: r.foreign(), Left: e.left, LeftOut: e.leftOut(),
	}
	for _, s := range r.Sockets {
		p.Sockets = append(p.Sockets, s.page())
		p.Kernel = p.Kernel || s.Begins != ""
		p.Departed = p.Departed || s.Cgroup != nil && s.Cgroup.Sent > 0
		p.Peeked = p.Peeked || s.Mapping.Peeks > 0
		p.User = p.User || s.view("user") != nil
		for _, v := range s.Views {
			p.Below = p.Below || v.Before != nil && v.Before.Most > 0
		}
	}
	var err error
	if p.Groups, p.Bytes, err = e.pageGroups(); err != nil {
		return fmt.Errorf("writing the page: %w", err)
	}
	if err := pageTemplate.Execute(w, &p); err != nil {
		return fmt.Errorf("writing the page: %w", err)
	}
	return nil
}

// view returns a view of the socket, nil if there is none.
func (o *Socket) view(name string) *View {
	for _, v := range o.Views {
		if v.Name == name {
			return v
		}
	}
	return nil
}

func (o *Socket) page() pageSocket {
	s := pageSocket{Kind: printable(o.Kind), Summary: printable(o.Summary)}
	for _, f := range o.Findings {
		f.Text = printable(f.Text)
		s.Findings = append(s.Findings, f)
	}
	if o.Begins != "" {
		n := o.view("kernel").Packets
		s.Figures = append(s.Figures, figure{digits(n), plural(n, "packet of the kernel view", "packets of the kernel view")})
	}
	if reads, c := o.Mapping.Reads, &o.Comparison; o.view("user") != nil {
		s.Figures = append(s.Figures,
			figure{digits(reads), plural(reads, "read by userspace", "reads by userspace")},
			figure{digits(c.Bytes), plural(c.Bytes, "byte it got", "bytes it got")})
	}
	if o.Sent != nil {
		s.Figures = append(s.Figures,
			figure{digits(o.Sent.Calls), plural(o.Sent.Calls, "call that sent", "calls that sent")},
			figure{digits(o.Sent.Bytes), plural(o.Sent.Bytes, "byte sent", "bytes sent")})
	}
	if o.Latency != nil && o.Ambiguous.Packets == 0 {
		s.Figures = append(s.Figures, figure{duration(o.Latency.Median), "from filter to read, median"})
	}
	return s
}

// pad pads a text with spaces to a width, on the left, or on the right if the width is
// negative.
func pad(s string, width int) string { return fmt.Sprintf("%"+strconv.Itoa(width)+"s", s) }

func plural(n uint64, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
