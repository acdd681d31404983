// Package extcap has the words in which Wireshark speaks with a program that captures for it: it
// asks for the interfaces, for the fields of each one's dialog, and then for a capture into a fifo.
// See doc/extcap_example.py and extcap(4) of Wireshark.
package extcap

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Interface is one that Wireshark lists.
type Interface struct {
	// Name is what it calls it, and Display what the user sees.
	Name, Display string
	// Arguments are the fields of its dialog.
	Arguments []Argument
}

// Type is that of a field.
type Type string

// The types of fields.
const (
	String    Type = "string"
	Unsigned  Type = "unsigned"
	Check     Type = "boolflag"
	File      Type = "fileselect"
	Selector  Type = "selector"
	Selectors Type = "multicheck"
)

// Argument is a field of the dialog. Wireshark gives it back as --Name VALUE, or as --Name if it is
// checked.
type Argument struct {
	Name, Display, Tooltip string
	Type                   Type
	// Default is what the field has at first.
	Default string
	// Placeholder says in an empty field what belongs there.
	Placeholder string
	// Required fields must have a value.
	Required bool
	// Values are those of a Selector, or of Selectors.
	Values []Value
}

// Value is a choice.
type Value struct {
	Value, Display string
	Default        bool
}

// Call is what Wireshark wants.
type Call struct {
	// Interfaces, DLTs and Config ask; Capture wants a capture.
	Interfaces, DLTs, Config, Capture bool
	// Interface is which, and Fifo where the capture goes.
	Interface, Fifo string
	// Filter is a capture filter of the user's, empty if there is none.
	Filter string
	// Values are those of the fields, by their names; of one that is checked it is "true".
	Values map[string]string
}

// flags of the protocol that have no value.
var withoutValue = []string{"extcap-interfaces", "extcap-dlts", "extcap-config", "capture"}

// IsCall tells whether a program was called by Wireshark.
func IsCall(args []string) bool {
	return slices.ContainsFunc(args, func(s string) bool {
		return strings.HasPrefix(s, "--extcap-") || s == "--capture"
	})
}

// ParseCall parses the arguments of a call. Checked says which fields have no value. What is
// unknown is left out, since later versions may say more.
func ParseCall(args []string, checked func(name string) bool) Call {
	c := Call{Values: make(map[string]string)}
	for len(args) > 0 {
		name, isFlag := strings.CutPrefix(args[0], "--")
		args = args[1:]
		if !isFlag {
			continue
		}
		name, value, has := strings.Cut(name, "=")
		switch {
		case has:
		case slices.Contains(withoutValue, name), checked(name):
			value = "true"
			if checked(name) && len(args) > 0 && (args[0] == "true" || args[0] == "false") {
				value, args = args[0], args[1:]
			}
		case len(args) > 0 && !strings.HasPrefix(args[0], "--"):
			value, args = args[0], args[1:]
		}
		c.set(name, value)
	}
	return c
}

func (c *Call) set(name, value string) {
	switch name {
	case "extcap-interfaces":
		c.Interfaces = true
	case "extcap-dlts":
		c.DLTs = true
	case "extcap-config":
		c.Config = true
	case "capture":
		c.Capture = true
	case "extcap-interface":
		c.Interface = value
	case "fifo":
		c.Fifo = value
	case "extcap-capture-filter":
		c.Filter = value
	case "extcap-version":
	default:
		c.Values[name] = value
	}
}

// clean keeps what would end a word of a sentence out of it.
var clean = strings.NewReplacer("{", "(", "}", ")", "\n", " ", "\r", " ")

// sentence writes a line: a kind, and words in braces.
func sentence(w io.Writer, kind string, words ...[2]string) {
	var b strings.Builder
	b.WriteString(kind + " ")
	for _, word := range words {
		if word[1] != "" {
			fmt.Fprintf(&b, "{%s=%s}", word[0], clean.Replace(word[1]))
		}
	}
	fmt.Fprintln(w, b.String())
}

// WriteInterfaces lists the interfaces.
func WriteInterfaces(w io.Writer, version, help string, all []Interface) {
	sentence(w, "extcap", [2]string{"version", version}, [2]string{"help", help})
	for _, i := range all {
		sentence(w, "interface", [2]string{"value", i.Name}, [2]string{"display", i.Display})
	}
}

// WriteDLT announces the one link type. What the file says of each of its interfaces is what
// counts.
func WriteDLT(w io.Writer, number int, name, display string) {
	sentence(w, "dlt", [2]string{"number", fmt.Sprint(number)}, [2]string{"name", name}, [2]string{"display", display})
}

// WriteConfig writes the fields of an interface's dialog.
func (i *Interface) WriteConfig(w io.Writer) {
	for n, a := range i.Arguments {
		required, exists := "", ""
		if a.Required {
			required = "true"
		}
		if a.Type == File {
			exists = "true"
		}
		sentence(w, "arg", [2]string{"number", fmt.Sprint(n)}, [2]string{"call", "--" + a.Name}, [2]string{"display", a.Display},
			[2]string{"tooltip", a.Tooltip}, [2]string{"type", string(a.Type)}, [2]string{"default", a.Default},
			[2]string{"placeholder", a.Placeholder}, [2]string{"required", required}, [2]string{"mustexist", exists})
		for _, v := range a.Values {
			sentence(w, "value", [2]string{"arg", fmt.Sprint(n)}, [2]string{"value", v.Value}, [2]string{"display", v.Display},
				[2]string{"default", fmt.Sprint(v.Default)})
		}
	}
}
