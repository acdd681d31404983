// Package manual makes manual pages, for man(1), of the same texts as --help: of a command, its flags
// and the commands below it.
package manual

import (
	"bufio"
	"cmp"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// Section is the section of the manual that the pages are in.
const Section = "1"

// Edition is what the pages are of.
type Edition struct {
	// Version is the program's. Date is when that was made; a page without one has none.
	Version string
	Date    time.Time
}

// Name is what a command's page is called, such as ebpfdump-capture.
func Name(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// Write writes the page of a command.
func Write(w io.Writer, cmd *cobra.Command, of Edition) error {
	cmd.InitDefaultHelpFlag()
	cmd.InitDefaultVersionFlag()
	p := &page{w: bufio.NewWriter(w)}
	date := ""
	if !of.Date.IsZero() {
		date = of.Date.UTC().Format(time.DateOnly)
	}
	p.line(".\\\" made by ebpfdump manual: the source is that of --help")
	p.line(`.TH "` + strings.ToUpper(escaped(Name(cmd))) + `" ` + Section + ` "` + date + `" "` + escaped(cmd.Root().Name()+" "+of.Version) + `"`)
	p.line(".nh")
	p.line(".ad l")
	p.section("Name")
	p.lines([]string{Name(cmd) + " - " + lowered(cmd.Short)})
	p.section("Synopsis")
	p.line(bold(cmd.CommandPath()) + value(strings.TrimPrefix(cmd.UseLine(), cmd.CommandPath())))
	p.section("Description")
	description, behind := parts(cmp.Or(cmd.Long, cmd.Short+"."))
	p.text(description)
	p.commands(cmd)
	if flags := cmd.Flags(); flags.HasAvailableFlags() {
		p.section("Options")
		p.flags(flags)
	}
	for _, part := range behind {
		p.section(part.title)
		p.text(part.blocks)
	}
	if cmd.Example != "" {
		p.section("Examples")
		p.literal(strings.Split(cmd.Example, "\n"))
	}
	p.seeAlso(cmd)
	return p.w.Flush()
}

// page is a page in the language of man(7). An error of its Writer stays until it is flushed.
type page struct {
	w     *bufio.Writer
	begun bool // the section has its first paragraph
}

func (p *page) line(text string) { p.w.WriteString(text + "\n") }

func (p *page) section(title string) {
	p.line(".SH " + strings.ToUpper(title))
	p.begun = false
}

// paragraph begins one, but for the first one of a section.
func (p *page) paragraph() {
	if p.begun {
		p.line(".PP")
	}
	p.begun = true
}

// commands lists what is below a command: of the first one those that have a page, and of others all,
// with their flags.
func (p *page) commands(cmd *cobra.Command) {
	if !cmd.HasAvailableSubCommands() {
		return
	}
	p.section("Commands")
	p.below(cmd)
}

func (p *page) below(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		if !sub.IsAvailableCommand() {
			continue
		}
		if !cmd.HasParent() {
			p.entry(bold(Name(sub))+"("+Section+")", lowered(sub.Short))
			continue
		}
		p.entry(bold(sub.CommandPath()), lowered(sub.Short))
		if sub.Long != "" {
			text, _ := parts(sub.Long)
			p.line(".RS")
			p.text(text)
			p.line(".RE")
		}
		if flags := sub.Flags(); flags.HasAvailableFlags() {
			p.line(".RS")
			p.flags(flags)
			p.line(".RE")
		}
		p.below(sub)
	}
}

// flags lists flags as --help does.
func (p *page) flags(flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		name, usage := pflag.UnquoteUsage(f)
		head := bold("--" + f.Name)
		if f.Shorthand != "" {
			head = bold("-"+f.Shorthand) + ", " + head
		}
		switch {
		case f.NoOptDefVal != "" && name != "":
			head += "[=" + value(name) + "]"
		case name != "":
			head += " " + value(name)
		}
		if strings.Trim(f.DefValue, "[]0") != "" && f.DefValue != "false" {
			usage += " (default " + f.DefValue + ")"
		}
		p.entry(head, usage)
	})
}

// entry is a paragraph with a head.
func (p *page) entry(head, text string) {
	p.line(".TP")
	p.line(head)
	p.lines(strings.Split(text, "\n"))
}

// part is a section made of a paragraph and what follows it.
type part struct {
	title  string
	blocks [][]string
}

// partHeads are how paragraphs begin that are sections on a page.
var partHeads = []struct{ begin, title string }{{"Exit status: ", "Exit status"}, {"Capabilities, ", "Capabilities"}}

// parts takes the text of --help apart: what it says first, and its sections.
func parts(text string) (description [][]string, behind []part) {
	for _, block := range blocks(text) {
		for _, head := range partHeads {
			if rest, ok := strings.CutPrefix(block[0], head.begin); ok {
				if head.begin == head.title+": " {
					block[0] = raised(rest)
				}
				behind = append(behind, part{title: head.title})
			}
		}
		if len(behind) == 0 {
			description = append(description, block)
			continue
		}
		last := &behind[len(behind)-1]
		last.blocks = append(last.blocks, block)
	}
	return description, behind
}

// text is a text of --help: paragraphs, and between them indented lines, which are tables or examples.
func (p *page) text(blocks [][]string) {
	for _, block := range blocks {
		if column := descriptions(block); column > 0 {
			p.table(block, column)
			continue
		}
		p.paragraph()
		if strings.HasPrefix(block[0], "  ") {
			p.literal(block)
		} else {
			p.lines(block)
		}
	}
}

// blocks takes a text apart where lines are empty, and where the indentation begins or ends.
func blocks(text string) [][]string {
	var all [][]string
	last := ""
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimRight(line, " ")
		if tabbed, ok := strings.CutPrefix(line, "\t"); ok {
			line = "  " + tabbed
		}
		line = strings.TrimLeft(line, "#")
		switch {
		case line == "":
		case last == "" || strings.HasPrefix(line, "  ") != strings.HasPrefix(last, "  "):
			all = append(all, []string{line})
		default:
			all[len(all)-1] = append(all[len(all)-1], line)
		}
		last = line
	}
	return all
}

// table is a list of words with what they mean, in a column of its own.
func (p *page) table(lines []string, column int) {
	for i, line := range lines {
		word, meaning := line, ""
		if len(line) > column && line[column-1] == ' ' { // the word is no longer than its column
			word, meaning = line[:column], line[column:]
		}
		if word = strings.TrimSpace(word); word != "" {
			p.line(".TP " + strconv.Itoa(column))
			p.line(bold(word))
		}
		if meaning != "" {
			p.lines([]string{meaning})
		}
		if i == 0 {
			p.line(".PD 0")
		}
	}
	p.line(".PD")
	p.begun = true
}

// descriptions is the column of a table's descriptions; 0 if the lines are none.
func descriptions(lines []string) int {
	if len(lines) == 1 || !strings.HasPrefix(lines[0], "  ") {
		return 0
	}
	for _, line := range lines {
		words := strings.TrimLeft(line, " ")
		if gap := strings.Index(words, "  "); gap > 0 {
			return len(line) - len(strings.TrimLeft(words[gap:], " "))
		}
	}
	return 0
}

// literal prints lines as they are, but for the indentation that they have in --help.
func (p *page) literal(lines []string) {
	p.line(".nf")
	p.line(".RS 2")
	for _, line := range lines {
		p.line(sheltered(escaped(strings.TrimPrefix(line, "  "))))
	}
	p.line(".RE")
	p.line(".fi")
}

// lines are text that man fills. No line of the source is longer than a terminal is wide.
func (p *page) lines(lines []string) {
	for _, line := range lines {
		for _, part := range terminal.Wrap(marked(strings.TrimSpace(line)), 80, 80) {
			p.line(sheltered(part))
		}
	}
}

// seeAlso names the pages beside a page.
func (p *page) seeAlso(cmd *cobra.Command) {
	p.section("See also")
	var names []string
	if cmd.HasParent() {
		names = append(names, Name(cmd.Root()))
	}
	for _, other := range cmd.Root().Commands() {
		if other != cmd && other.IsAvailableCommand() {
			names = append(names, Name(other))
		}
	}
	for _, name := range names {
		p.line(".BR " + escaped(name) + " (" + Section + "),")
	}
	p.line(".BR tcpdump (8),")
	p.line(".BR tshark (1)")
}

// escapes are the characters that roff has other uses for, or makes typographical.
var escapes = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, `"`, `\(dq`)

func escaped(text string) string { return escapes.Replace(text) }

// sheltered is a line of text that is no request, whatever it begins with.
func sheltered(line string) string {
	if strings.HasPrefix(line, ".") {
		return `\&` + line
	}
	return line
}

func bold(text string) string { return `\fB` + escaped(text) + `\fR` }

// marked is text with its flags in bold.
func marked(text string) string {
	var b strings.Builder
	for i, word := range strings.Split(text, " ") {
		if i > 0 {
			b.WriteByte(' ')
		}
		flag := strings.TrimRightFunc(word, func(r rune) bool { return strings.ContainsRune(`.,:;)"`, r) })
		at := strings.IndexFunc(flag, func(r rune) bool { return r != '(' && r != '"' })
		if at < 0 || len(flag) < at+2 || flag[at] != '-' {
			b.WriteString(escaped(word))
			continue
		}
		b.WriteString(escaped(flag[:at]) + bold(flag[at:]) + escaped(word[len(flag):]))
	}
	return b.String()
}

// value is a part of a command line with what stands for values in italics: words in capitals.
func value(text string) string {
	var b strings.Builder
	isValue := func(r rune) bool { return unicode.IsUpper(r) }
	for text != "" {
		at := strings.IndexFunc(text, isValue)
		if at < 0 {
			at = len(text)
		}
		b.WriteString(escaped(text[:at]))
		text = text[at:]
		if end := strings.IndexFunc(text, func(r rune) bool { return !isValue(r) }); end > 0 {
			b.WriteString(`\fI` + text[:end] + `\fR`)
			text = text[end:]
		} else if end < 0 {
			b.WriteString(`\fI` + text + `\fR`)
			text = ""
		}
		if text == "" {
			break
		}
	}
	return b.String()
}

// lowered is a sentence as a part of another one, if it begins with a word that may be.
func lowered(text string) string {
	if len(text) > 1 && unicode.IsLower(rune(text[1])) {
		return strings.ToLower(text[:1]) + text[1:]
	}
	return text
}

// raised is the beginning of a sentence.
func raised(text string) string {
	if text == "" {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:]
}
