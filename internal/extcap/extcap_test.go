package extcap

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

func checked(name string) bool { return name == "probe" }

func TestParseCall(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		line string
		want Call
	}{
		{"--extcap-interfaces --extcap-version=4.0", Call{Interfaces: true}},
		{"--extcap-interface ebpfdump-udp --extcap-dlts", Call{Interface: "ebpfdump-udp", DLTs: true}},
		{"--extcap-config --extcap-interface=ebpfdump-udp", Call{Interface: "ebpfdump-udp", Config: true}},
		{"--capture --extcap-interface ebpfdump-udp --fifo /tmp/f --extcap-capture-filter x --listen 1:2 --probe --views a,b",
			Call{Capture: true, Interface: "ebpfdump-udp", Fifo: "/tmp/f", Filter: "x", Values: map[string]string{"listen": "1:2", "probe": "true", "views": "a,b"}}},
		{"--capture --probe false --later 5 stray --last", Call{Capture: true, Values: map[string]string{"probe": "false", "later": "5", "last": ""}}},
	} {
		if tt.want.Values == nil {
			tt.want.Values = map[string]string{}
		}
		args := strings.Fields(tt.line)
		if got := ParseCall(args, checked); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", tt.line, got, tt.want)
		}
		if !IsCall(args) {
			t.Errorf("%s is no call", tt.line)
		}
	}
	if IsCall([]string{"capture", "--sock", "udp"}) {
		t.Error("a command is taken for a call")
	}
}

// No value can end its word, or its line.
func TestSentences(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	i := Interface{Name: "x", Arguments: []Argument{{Name: "a", Display: "an {evil}\nname", Type: Selectors, Values: []Value{{"v", "V", true}}}}}
	WriteInterfaces(&b, "1", "", []Interface{i})
	i.WriteConfig(&b)
	WriteDLT(&b, 252, "UPPER", "")
	want := []string{
		"extcap {version=1}", "interface {value=x}",
		"arg {number=0}{call=--a}{display=an (evil) name}{type=multicheck}", "value {arg=0}{value=v}{display=V}{default=true}",
		"dlt {number=252}{name=UPPER}", "",
	}
	if got := strings.Split(b.String(), "\n"); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// What tshark 4.0, 4.2 and 4.4 say.
func TestParseFolders(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Folders{
		"Temp:                \t/tmp\nExtcap path:         \t/usr/lib/wireshark/extcap\n":                                   {Global: "/usr/lib/wireshark/extcap"},
		"Personal Extcap path:\t/home/a/.local/lib/wireshark/extcap\nGlobal Extcap path:  \t/usr/lib/wireshark/extcap\n":    {Global: "/usr/lib/wireshark/extcap", Personal: "/home/a/.local/lib/wireshark/extcap"},
		"Personal configuration:\t/home/a/.config/wireshark\nPersonal Lua Plugins:\t/home/a/.local/lib/wireshark/plugins\n": {Configuration: "/home/a/.config/wireshark", Lua: "/home/a/.local/lib/wireshark/plugins"},
		"nothing of the kind": {},
	} {
		if got := ParseFolders(text); got != want {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

func FuzzParseCall(f *testing.F) {
	f.Add("--capture\x00--extcap-interface\x00x\x00--probe")
	f.Fuzz(func(t *testing.T, line string) {
		c := ParseCall(strings.Split(line, "\x00"), checked)
		for name, value := range c.Values {
			if strings.Contains(name, "=") || len(value) > len(line) {
				t.Errorf("%q: %q", name, value)
			}
		}
	})
}
