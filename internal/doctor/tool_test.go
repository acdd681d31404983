package doctor

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
)

// installed is a world in which programs print what is given for "NAME ARGS"; others
// fail, and those in absent do not exist.
func installed(prints map[string]string, absent ...string) world {
	return world{
		files: fstest.MapFS{"usr/lib/wireshark/extcap/dumper": &fstest.MapFile{}},
		lookPath: func(name string) (string, error) {
			for _, a := range absent {
				if a == name {
					return "", exec.ErrNotFound
				}
			}
			return "/usr/bin/" + name, nil
		},
		output: func(_ context.Context, path string, args ...string) (string, error) {
			call := strings.TrimPrefix(path, "/usr/bin/") + " " + strings.Join(args, " ")
			if text, ok := prints[call]; ok {
				return text, nil
			}
			return "version 6.6.6 crashed", errors.New("exit status 1")
		},
	}
}

func TestTools(t *testing.T) {
	t.Parallel()
	w := installed(map[string]string{
		"tshark -v":         "Running as user \"root\".\nTShark (Wireshark) 4.0.17 (Git v4.0.17)\n",
		"tshark -G folders": "Temp:  /tmp\nExtcap path:         \t/usr/lib/wireshark/extcap\n",
		"tcpdump --version": "no number at all",
	}, "wireshark")
	got, extcap := w.tools(t.Context())
	want := []Tool{
		{Name: "tshark", Finding: Finding{Yes, "4.0.17, /usr/bin/tshark"}, Path: "/usr/bin/tshark", Version: "4.0.17"},
		{Name: "wireshark", Finding: Finding{No, "not found on the PATH"}},
		{Name: "capinfos", Finding: Finding{Unknown, "/usr/bin/capinfos does not tell its version: exit status 1"}, Path: "/usr/bin/capinfos"},
		{Name: "tcpdump", Finding: Finding{Yes, "/usr/bin/tcpdump"}, Path: "/usr/bin/tcpdump"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant: %+v", got, want)
	}
	if extcap.Answer != Yes || extcap.Detail != "/usr/lib/wireshark/extcap" {
		t.Errorf("extcap: %+v", extcap)
	}
}

func TestExtcap(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		world   world
		answer  Answer
		folders []string
	}{
		"no tshark": {installed(nil, "tshark"), Unknown, []string{}},
		"fails":     {installed(nil), Unknown, []string{}},
		"no line":   {installed(map[string]string{"tshark -G folders": "Temp: /tmp\n"}), Unknown, []string{}},
		"two, the second is there": {
			installed(map[string]string{"tshark -G folders": "Personal Extcap path:\t/root/x\nGlobal Extcap path:\t/usr/lib/wireshark/extcap\n"}),
			Yes, []string{"/root/x", "/usr/lib/wireshark/extcap"},
		},
		"not there": {installed(map[string]string{"tshark -G folders": "Extcap path:\t/nowhere\n"}), No, []string{"/nowhere"}},
		"empty":     {installed(map[string]string{"tshark -G folders": "Extcap path:\t\nOther: x\n"}), Unknown, []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := test.world.extcap(t.Context())
			if e.Answer != test.answer || !reflect.DeepEqual(e.Folders, test.folders) || e.Detail == "" {
				t.Errorf("%+v, want %s %v", e, test.answer, test.folders)
			}
		})
	}
}

// A tool that never ends is not waited for after the context has ended.
func TestProgramOutputEnds(t *testing.T) {
	t.Parallel()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go cancel()
	if _, err := programOutput(ctx, executable, forever); err == nil {
		t.Error("an end that never came was no error")
	}
}
