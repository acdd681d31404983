package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/testscript"
)

// evil is a name that tries to control root's terminal: title, clipboard, colours, C1
// controls as bytes and as characters, a line that looks like ours, bidirectional
// controls, and invalid UTF-8.
const evil = "x\x1b]0;t\a\x1b]52;c;cm0=\a\x1b[31m\x9b1m\u009b1m\r\nforged\u202e\u2066\u061c\u2028\x7f\xff\u00e9"

// inert checks that nothing in the last output acts on a terminal.
func inert(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: inert")
	}
	for _, stream := range []string{"stdout", "stderr"} {
		text := ts.ReadFile(stream)
		if at := acts(text); at >= 0 {
			ts.Fatalf("%s acts at byte %d: %q", stream, at, text)
		}
		if strings.HasPrefix(text, "forged") || strings.Contains(text, "\nforged") {
			ts.Fatalf("%s has a line that somebody forged: %q", stream, text)
		}
	}
}

// acts returns the offset of what a terminal acts on, -1 if there is nothing.
func acts(text string) int {
	for i, r := range text {
		_, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == '\n' || r == '\t':
		case r < ' ', r >= 0x7f && r < 0xa0, r == utf8.RuneError && size == 1,
			r == 0x61c, r >= 0x200b && r <= 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2060 && r <= 0x206f:
			return i
		}
	}
	return -1
}

// hostile KIND FILE makes a pcapng file, a survey or a trace text with evil in all texts.
func hostile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: hostile pcapng|survey|trace FILE")
	}
	var content []byte
	switch args[0] {
	case "pcapng":
		content = hostileCapture()
	case "survey":
		names, err := filepath.Glob("../../samples/survey/*.json")
		ts.Check(err)
		text, err := os.ReadFile(names[0])
		ts.Check(err)
		var report any
		ts.Check(json.Unmarshal(text, &report))
		content, err = json.Marshal(corrupt(report))
		ts.Check(err)
	case "trace":
		for _, text := range []string{
			"Kernelspace: Received 1 bytes, dumping", "\tbyte[0]=0x30", "",
			"Kernelspace: Received 1 bytes, dumping", "\tbyte[0]=0x\x1b[31m\x9b", "",
		} {
			content = append(content, "     ev\x1b[31m\u009b1m-1       [000] .....     1.000001: bpf_trace_printk: "+text+"\n"...)
		}
	default:
		ts.Fatalf("hostile: no kind %s", args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), content, 0o600))
}

// corrupt appends evil to all values of a JSON text.
func corrupt(node any) any {
	switch node := node.(type) {
	case string:
		return node + evil
	case []any:
		for i := range node {
			node[i] = corrupt(node[i])
		}
	case map[string]any:
		for key, value := range node {
			if key != "status" { // or nothing else is looked at
				node[key] = corrupt(value)
			}
		}
	}
	return node
}

// hostileCapture is a pcapng file with evil in every text that it can have, of our views
// and of foreign interfaces, and in payload.
func hostileCapture() []byte {
	option := func(code int, value string) []byte {
		b := binary.LittleEndian.AppendUint16(nil, uint16(code))
		b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
		b = append(b, value...)
		return append(b, make([]byte, -len(value)&3)...)
	}
	block := func(kind uint32, parts ...[]byte) []byte {
		body := bytes.Join(parts, nil)
		b := binary.LittleEndian.AppendUint32(nil, kind)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(body)+12))
		b = append(b, body...)
		return binary.LittleEndian.AppendUint32(b, uint32(len(body)+12))
	}
	const (
		comment, ifName, ifDescription, ifFilter, packetID = 1, 2, 3, 11, 5
	)
	file := block(0x0a0d0d0a, []byte("\x4d\x3c\x2b\x1a\x01\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff"),
		option(2, evil), option(3, evil), option(4, evil), option(comment, evil), option(0, ""))
	for _, i := range []struct {
		name string
		link uint16
	}{{"udp:kernel", 228}, {"udp:user", 252}, {evil + ":kernel", 228}, {evil, 1}} {
		file = append(file, block(1, binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(nil, i.link), 0), 0),
			option(ifName, i.name), option(ifDescription, evil), option(ifFilter, "\x00"+evil), option(comment, evil), option(0, ""))...)
	}
	// IPv4 and UDP with an evil payload, and what userspace got of it.
	ip := append([]byte{0x45, 0, 0, byte(28 + len(evil)), 0, 1, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1,
		4, 87, 8, 174, 0, byte(8 + len(evil)), 0, 0}, evil...)
	pdu := append([]byte("\x00\x0c\x00\x04data\x00\x0c\x00\x08\x1b[31mabc\x00\x00\x00\x00"), evil...)
	ethernet := append(append(bytes.Repeat([]byte{255}, 12), 8, 0), ip...)
	for i, data := range [][]byte{ip, pdu, ip, ethernet} {
		head := make([]byte, 20)
		for at, value := range []int{i, 0x5f000, i * 1000, len(data), len(data)} {
			binary.LittleEndian.PutUint32(head[4*at:], uint32(value))
		}
		file = append(file, block(6, head, data, make([]byte, -len(data)&3),
			option(comment, evil), option(packetID, string([]byte{byte(i/2 + 1), 0, 0, 0, 0, 0, 0, 0})), option(0, ""))...)
	}
	return file
}
