package wireshark

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestPicture: what README shows is a Wireshark with this profile. make pictures makes it anew.
func TestPicture(t *testing.T) {
	b, err := os.ReadFile("../../samples/wireshark.svg")
	if err != nil {
		t.Fatal(err)
	}
	picture := string(b)
	shown := func(what, text string) {
		if !strings.Contains(picture, ">"+text+"<") {
			t.Errorf("the picture does not show the %s %q: make pictures", what, text)
		}
	}
	shown("name", "Profile: "+Name)
	for _, m := range regexp.MustCompile(`(?m)^\t"([^"]+)", "`).FindAllStringSubmatch(string(content("preferences")), -1) {
		shown("column", m[1])
	}
	for _, m := range regexp.MustCompile(`(?m)^"TRUE","([^"]+)"`).FindAllStringSubmatch(string(content("dfilter_buttons")), -1) {
		shown("button", m[1])
	}
	// Of each view that the capture has, the name in full and the colours.
	for _, view := range []string{"wire", "cgroup", "kernel", "net", "link", "user", "sent"} {
		shown("view", "udp:"+view)
		rule := regexp.MustCompile(`@frame.interface_name matches ":\(?(?:\w+\|)*` + view + `(?:\|\w+)*\)?\$"@\[(\d+),(\d+),(\d+)\]`)
		m := rule.FindStringSubmatch(string(content("colorfilters")))
		if m == nil {
			t.Errorf("no colour for the view %s", view)
			continue
		}
		var red, green, blue int
		if _, err := fmt.Sscan(m[1]+" "+m[2]+" "+m[3], &red, &green, &blue); err != nil {
			t.Fatal(err)
		}
		if view == "user" {
			continue // selected, and so of another colour
		}
		if colour := fmt.Sprintf("fill=\"#%02x%02x%02x\"", red>>8, green>>8, blue>>8); !strings.Contains(picture, colour) {
			t.Errorf("the picture has no %s, which is the colour of the view %s: make pictures", colour, view)
		}
	}
}

// TestWidths: each column has a width, in the order of the columns, as newer Wiresharks want it.
func TestWidths(t *testing.T) {
	var columns, widths []string
	for _, m := range regexp.MustCompile(`(?m)^\t"[^"]+", "(%[^":]+(?::[^":]+)?)`).FindAllStringSubmatch(string(content("preferences")), -1) {
		columns = append(columns, m[1])
	}
	for _, m := range regexp.MustCompile(`(?m)^\t"?(%[^",]+)"?, \d+`).FindAllStringSubmatch(string(content(recent)), -1) {
		widths = append(widths, m[1])
	}
	if len(columns) == 0 || strings.Join(columns, " ") != strings.Join(widths, " ") {
		t.Errorf("the columns are %v, and there are widths for %v", columns, widths)
	}
}
