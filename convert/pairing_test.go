package convert

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/gopacket/layers"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert/internal/text"
)

// pairing reads a trace text and a server text together.
func pairing(t *testing.T, trace, server string, o ReadOptions) ([]*capture.Packet, error) {
	t.Helper()
	o.Name = "trace.txt"
	kernel, err := Open(strings.NewReader(trace), nil, o)
	if err != nil {
		t.Fatal(err)
	}
	o.Name = "server.txt"
	user, err := Open(strings.NewReader(server), nil, o)
	if err != nil {
		t.Fatal(err)
	}
	// In either order.
	r, err := Merge(user, kernel)
	if err != nil {
		t.Fatal(err)
	}
	return drain(r)
}

// rows lists each packet's view and id.
func rows(packets []*capture.Packet) string {
	var b strings.Builder
	for _, p := range packets {
		b.WriteString(p.Interface.View.String()[:1])
		b.WriteString(" " + string(rune('0'+p.ID)) + ", ")
	}
	return b.String()
}

// at is a packet of a trace text at a given time.
func at(second string, data []byte) string {
	return dumpText(strings.Replace(newPrefix, "1234.", second+".", 1), text.KernelHead, len(data), data[:min(len(data), text.Dumped)])
}

func TestPairDatagrams(t *testing.T) {
	t.Parallel()
	var trace, server strings.Builder
	payloads := []string{"one", "two", "two", "three", strings.Repeat("long", 100), ""}
	for i, payload := range payloads {
		trace.WriteString(at(string(rune('1'+i)), datagram(t, udpKernel, client4, server4, payload).Data))
	}
	for _, payload := range []string{payloads[0], payloads[1], payloads[3], payloads[4][:], ""} {
		server.WriteString(userText([]byte(payload)))
	}
	packets, err := pairing(t, trace.String(), server.String(), ReadOptions{Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := rows(packets), "k 1, u 1, k 2, u 2, k 3, k 4, u 4, k 5, u 5, k 6, u 6, "; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, p := range packets {
		if p.Interface.View != capture.ViewUser {
			continue
		}
		if p.Interface.Name() != "udp:user" || p.Src.Port() != client4.Port() || p.Dst.Port() != server4.Port() || p.Time != int64(p.ID)*1e9+567890000 {
			t.Errorf("packet %d: %s, %v > %v at %d", p.ID, p.Interface.Name(), p.Src, p.Dst, p.Time)
		}
	}
}

func TestPairWithoutPartner(t *testing.T) {
	t.Parallel()
	d := func(payload string) string { return kernelText(datagram(t, udpKernel, client4, server4, payload).Data) }
	u := func(payload string) string { return userText([]byte(payload)) }
	for _, tt := range []struct{ name, trace, server, want string }{
		{"not in the trace", d("a") + d("b"), u("x") + u("a") + u("b"), "u 0, k 1, u 1, k 2, u 2, "},
		{"not in the server text", d("a") + d("b") + d("c"), u("b"), "k 1, k 2, u 2, k 3, "},
		{"in another order", d("a") + d("b"), u("b") + u("a"), "k 1, k 2, u 2, u 1, "},
		{"more than once", d("a"), u("a") + u("a"), "k 1, u 1, u 0, "},
	} {
		packets, err := pairing(t, tt.trace, tt.server, ReadOptions{})
		if got := rows(packets); got != tt.want || err != nil {
			t.Errorf("%s: %s, want %s; error %v", tt.name, got, tt.want, err)
		}
		for _, p := range packets {
			if p.ID == 0 && p.Receipt.Missing != capture.MissingInTrace {
				t.Errorf("%s: %+v", tt.name, p.Receipt)
			}
		}
	}
}

func TestPairRaw(t *testing.T) {
	t.Parallel()
	data := ipv4(datagram(t, udpKernel, client4, server4, probe).Data)
	packets, err := pairing(t, kernelText(data), userText(data), ReadOptions{})
	if got := rows(packets); got != "k 1, u 1, " || err != nil || packets[1].Interface.Name() != "raw:user" {
		t.Errorf("%s, error %v", got, err)
	}
}

// TestPairStreams pairs reads of two connections: of several segments, of parts of one,
// and of the ends.
func TestPairStreams(t *testing.T) {
	t.Parallel()
	other := netip.MustParseAddrPort("127.0.0.1:52639")
	var trace, server strings.Builder
	sent := map[netip.AddrPort]uint32{}
	send := func(from netip.AddrPort, flags, payload string) {
		trace.WriteString(kernelText(tcpSegment(t, from, sent[from], flags, payload)))
		sent[from] += uint32(len(payload))
		if strings.ContainsAny(flags, "SF") {
			sent[from]++
		}
	}
	receive := func(payload string) { server.WriteString(userText([]byte(payload))) }
	send(client4, "S", "")                                         // 1
	send(client4, "A", "")                                         // 2
	send(client4, "A", "GET /")                                    // 3
	send(other, "S", "")                                           // 4
	send(client4, "A", "index")                                    // 5
	send(other, "A", "POST")                                       // 6
	send(client4, "FA", "")                                        // 7
	send(other, "A", strings.Repeat("a", 300))                     // 8, of which 128 bytes are printed
	send(other, "FA", "")                                          // 9
	receive("GET /in")                                             // of 3 and 5
	receive("dex")                                                 // of 5
	receive("POST")                                                // of 6
	receive("")                                                    // of 7
	receive(strings.Repeat("a", 100))                              // of 8
	server.WriteString(dumpText("", text.UserHead, 200, []byte{})) // unreadable: no byte is known
	receive("never sent")

	packets, err := pairing(t, trace.String(), server.String(), ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := rows(packets), "k 1, k 2, k 3, k 4, k 5, u 3, u 5, k 6, u 6, k 7, u 7, k 8, u 8, u 0, u 0, k 9, "; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, p := range packets {
		if p.Interface.View == capture.ViewUser && len(p.Data) == 7 && (fmt.Sprint(p.Receipt.Fed.Ranges) != "[[3 3] [5 5]]" || p.Src != client4 || p.Dst != server4) {
			t.Errorf("%v > %v, %+v", p.Src, p.Dst, p.Receipt)
		}
	}
}

// tcpSegment has a sequence number, flags and a payload.
func tcpSegment(t *testing.T, from netip.AddrPort, sequence uint32, flags, payload string) []byte {
	data := segment(t, tcpKernel, from, server4, tcpFlags(flags, sequence), payload).Data
	return data
}

func TestPairErrors(t *testing.T) {
	t.Parallel()
	d := kernelText(datagram(t, udpKernel, client4, server4, "a").Data)
	u := userText([]byte("a"))
	for _, tt := range []struct{ name, trace, server, want, err string }{
		{"bad trace", d + traceByte("5", "5") + d, u + u, "k 1, u 1, ", "trace.txt:12: a byte of no packet"},
		{"bad server text", d + d, u + "junk\n" + u, "k 1, u 1, ", "server.txt:4: \"junk\""},
		{"kind", kernelText([]byte{1}), u, "", "trace.txt:1: the kind of socket"},
	} {
		packets, err := pairing(t, tt.trace, tt.server, ReadOptions{Strict: true})
		if got := rows(packets); got != tt.want || err == nil || !strings.HasPrefix(err.Error(), tt.err) {
			t.Errorf("%s: %s, want %s; error %v", tt.name, got, tt.want, err)
		}
	}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	open := func(text string) *Source {
		s, err := Open(strings.NewReader(text), nil, ReadOptions{Name: "in", Kind: kind(t, "udp")})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	a := at("1", []byte("a")) + at("3", []byte("c")) + at("4", []byte("d"))
	b := at("2", []byte("b")) + at("5", []byte("e"))
	r, err := Merge(open(a), open(b))
	if err != nil {
		t.Fatal(err)
	}
	packets, err := drain(r)
	var data strings.Builder
	ids := map[uint64]bool{}
	for _, p := range packets {
		data.Write(p.Data)
		ids[p.ID] = true
	}
	if data.String() != "abcde" || len(ids) != 5 || err != nil {
		t.Errorf("%q, ids %v, error %v", data.String(), ids, err)
	}

	if _, err := Merge(open(a), open(a), open(userText(nil))); err == nil {
		t.Error("two traces and one server text: no error")
	}
	a = at("1", datagram(t, udpKernel, client4, server4, "a").Data) + at("3", []byte("c")) + at("4", []byte("d"))
	b = at("2", datagram(t, udpKernel, client4, server4, "b").Data) + at("5", []byte("e"))
	r, err = Merge(open(a), open(userText([]byte("a"))), open(userText([]byte("b"))), open(b))
	if err != nil {
		t.Fatal(err)
	}
	packets, err = drain(r)
	if got := rows(packets); got != "k 1, u 1, k 2, u 2, k 3, k 5, k 4, " || err != nil {
		t.Errorf("two pairs: %s, error %v", got, err)
	}
}

func tcpFlags(flags string, sequence uint32) layers.TCP {
	return layers.TCP{
		Seq: sequence, SYN: strings.Contains(flags, "S"), ACK: strings.Contains(flags, "A"), FIN: strings.Contains(flags, "F"),
	}
}
