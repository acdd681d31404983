package convert

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ebpfdump/ebpfdump/capture"
)

// TestTextRoundTrip reads texts, writes them, and reads them again.
func TestTextRoundTrip(t *testing.T) {
	t.Parallel()
	udp := datagram(t, udpKernel, client4, server4, probe).Data
	long := datagram(t, udpKernel, client4, server4, strings.Repeat("x", 1000)).Data
	for name, text := range map[string]string{
		"trace":  kernelText(udp) + at("99", long) + strings.ReplaceAll(kernelText(udp), "nc-2834 ", "a b-[0]-7"),
		"server": userText([]byte(probe)) + userText(nil) + userText([]byte("\x00\xff")),
	} {
		boot := time.Unix(1793880000, 1)
		options := ReadOptions{BootTime: boot, Strict: true}
		packets := mustRead(t, strings.NewReader(text), options)
		var again bytes.Buffer
		format, _ := FormatByName("text")
		w, err := format.Create(&again, WriteOptions{BootTime: boot})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range packets {
			if err := w.WritePacket(p); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		reread := mustRead(t, &again, options)
		if len(packets) != 3 || len(reread) != 3 {
			t.Fatalf("%s: %d and %d packets", name, len(packets), len(reread))
		}
		for i := range packets {
			if !reflect.DeepEqual(packets[i], reread[i]) {
				t.Errorf("%s: packet %d:\n got %+v\nwant %+v", name, i, reread[i], packets[i])
			}
		}
	}
}

// TestTextOfCaptures writes packets that do not come from text.
func TestTextOfCaptures(t *testing.T) {
	t.Parallel()
	kernel := datagram(t, udpKernel, client4, server4, strings.Repeat("x", 1000))
	kernel.Comment = "task \nKernelspace: Received 5 bytes, dumping\n-1, cpu 0"
	var text bytes.Buffer
	if err := writeAs(t, "text", &text, kernel); err != nil {
		t.Fatal(err)
	}
	packets := mustRead(t, &text, ReadOptions{Strict: true})
	if len(packets) != 1 || !bytes.Equal(packets[0].Data, kernel.Data) || packets[0].Time != kernel.Time/1000*1000 || packets[0].Comment != "task <...>-0, cpu 0" {
		t.Errorf("%+v", packets)
	}
	large := message(udpUser, client4, server4, protocolUDP, strings.Repeat("x", 200000))
	text.Reset()
	if err := writeAs(t, "text", &text, large, large); err != nil {
		t.Fatal(err)
	}
	packets = mustRead(t, &text, ReadOptions{Strict: true})
	if len(packets) != 2 || !bytes.Equal(packets[1].Data, large.Data) {
		t.Errorf("%d packets", len(packets))
	}
	foreign := &capture.Packet{Interface: &capture.Interface{Label: "eth0", Layer: capture.LayerLink}}
	if err := writeAs(t, "text", &text, foreign); err == nil {
		t.Error("text of no view: no error")
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	full := datagram(t, udpKernel, client4, server4, probe)
	full.ID, full.Drops, full.Len, full.Comment = 1<<64-1, 3, 100, "a \"b\"\\\n\x7fä\xff"
	eth := &capture.Interface{Label: "eth0", Layer: capture.LayerForeign, LinkType: 113}
	var out bytes.Buffer
	err := writeAs(t, "json", &out, full, message(udpUser, client6, server6, protocolUDP, "hi"),
		&capture.Packet{Interface: rawKernel, Data: ipv4(full.Data), Direction: capture.Outbound},
		&capture.Packet{Interface: eth, Data: []byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`{"time":"2026-11-05T12:00:00.123456789Z","interface":"udp:kernel","kind":"udp","view":"kernel","layer":"transport",` +
			`"packet_id":18446744073709551615,"direction":"in","length":100,"captured":19,"drops":3,"protocol":17,` +
			`"src":"127.0.0.1","dst":"127.0.0.1","src_port":52638,"dst_port":16962,"comment":"a \"b\"\\\u000a\u007fä` + "\ufffd" + `",` +
			`"data":"` + hex.EncodeToString(full.Data) + `"}`,
		`{"time":"2026-11-05T12:00:00.123456789Z","interface":"udp:user","kind":"udp","view":"user","layer":"message",` +
			`"direction":"in","length":2,"captured":2,"protocol":17,"src":"fe80::1","dst":"fe80::2","src_port":52638,"dst_port":16962,` +
			`"call":"recvfrom","pid":4321,"tid":4322,"data":"6869"}`,
		`{"time":"1970-01-01T00:00:00.000000000Z","interface":"raw:kernel","kind":"raw","view":"kernel","layer":"network",` +
			`"direction":"out","length":39,"captured":39,"protocol":17,"src":"127.0.0.1","dst":"127.0.0.1","src_port":52638,"dst_port":16962,` +
			`"data":"4500002740004000401`,
		`{"time":"1970-01-01T00:00:00.000000000Z","interface":"eth0","layer":"foreign","link_type":113,"length":1,"captured":1,"data":"01"}`,
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d lines", len(lines))
	}
	for i, line := range lines {
		if !json.Valid([]byte(line)) {
			t.Errorf("line %d is no JSON: %s", i, line)
		}
		if i == 2 {
			continue
		}
		if line != want[i] {
			t.Errorf("line %d\n got %s\nwant %s", i, line, want[i])
		}
	}
	var fields map[string]any
	if err := json.Unmarshal([]byte(lines[2]), &fields); err != nil || fields["src_port"] != 52638.0 || fields["direction"] != "out" {
		t.Errorf("%v, error %v", fields, err)
	}
}

func TestFormatNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"a.pcapng": "pcapng", "a.PCAPNG": "pcapng", "a.b.pcap": "pcap", "a.cap": "pcap", "x/a.json": "json", "a.jsonl": "json", "a.txt": "text",
	} {
		if f, ok := FormatByFileName(name); !ok || f.Name != want {
			t.Errorf("%s: %v, want %s", name, f, want)
		}
	}
	for _, name := range []string{"a", "-", "a.xyz", ""} {
		if f, ok := FormatByFileName(name); ok {
			t.Errorf("%q: %s", name, f.Name)
		}
	}
	for _, f := range Formats(false) {
		if !f.Readable() {
			t.Errorf("%s cannot be read", f.Name)
		}
	}
	for _, f := range Formats(true) {
		if !f.Writable() {
			t.Errorf("%s cannot be written", f.Name)
		}
	}
}
