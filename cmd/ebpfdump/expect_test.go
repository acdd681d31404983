package main

import (
	"strings"
	"testing"
)

func TestExpectations(t *testing.T) {
	t.Parallel()
	expected, err := parseExpectations(strings.NewReader("# of the probe\n1 keep\n\n2 drop # a reset\n 3\t12\n4 4294967295\n5 keep\n9 9 -1 keeps all; the last 3 bytes are not in the capture\n7 40 12 keeps 12 of 40 bytes\n8 40 0 drops it"))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		id      uint64
		verdict int32
		length  int
		ok      bool
	}{
		{1, -1, 40, true}, {1, 40, 40, true}, {1, 39, 40, false}, {1, 0, 0, false},
		{2, 0, 40, true}, {2, 1, 40, false}, {3, 12, 40, true}, {3, -1, 12, false}, {4, -1, 40, true}, {9, 9, 9, true}, {9, 8, 9, false}, {7, 12, 40, true}, {8, 0, 40, true}, {8, 1, 40, false},
	} {
		if e, ok := expected.compare(test.id, test.verdict, test.length, nil); e == nil || ok != test.ok {
			t.Errorf("packet %d, verdict %d of %d: %v", test.id, test.verdict, test.length, ok)
		}
	}
	if e, _ := expected.compare(6, 0, 0, nil); e != nil {
		t.Error("packet 6 has an expectation")
	}
	const want = "5 of 8 verdicts are not as x.txt expects, and 1 of its packets are not in the capture"
	if err := expected.outcome("x.txt", nil); err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}

func TestExpectationsRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                "0: it expects nothing",
		"# nothing\n":                     "1: it expects nothing",
		"1 keep\n2":                       "2: a line is a packet's id and its verdict",
		"1 2 3":                           "1: a line is",
		"1 19 12 keep":                    "1: a line is",
		"one keep":                        `1: "one" is not a packet's id`,
		"-1 keep":                         `1: "-1" is not a packet's id`,
		"1 maybe":                         `1: "maybe" is none of keep, drop and a number of bytes`,
		"1 4294967296":                    "1: ",
		"1 drop\n1 keep":                  "2: packet 1 has a verdict already",
		strings.Repeat("x", 70000) + "\n": "1: ",
	} {
		if _, err := parseExpectations(strings.NewReader(text)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.20q: %v, want %q", text, err, want)
		}
	}
}

func FuzzExpectations(f *testing.F) {
	f.Add("1 keep\n2 drop # no\n3 0x12\n", uint64(1), int32(-1), 40)
	f.Fuzz(func(t *testing.T, text string, id uint64, verdict int32, length int) {
		expected, err := parseExpectations(strings.NewReader(text))
		if err != nil {
			return
		}
		if e, ok := expected.compare(id, verdict, length, nil); ok && e == nil {
			t.Error("as expected, without an expectation")
		}
		_ = expected.outcome("x", nil)
	})
}
