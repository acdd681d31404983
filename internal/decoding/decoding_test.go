package decoding

import (
	"encoding/binary"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// TestPorts compares with what tshark says of the ports.
func TestPorts(t *testing.T) {
	all, err := exec.Command(testutil.RequireTool(t, "tshark"), "-G", "decodes").Output()
	if err != nil {
		t.Fatal(err)
	}
	has := func(port uint16, name string) bool {
		return strings.Contains(string(all), "\ntcp.port\t"+strconv.Itoa(int(port))+"\t"+name)
	}
	for name, port := range ports {
		if !has(port, name+"\n") {
			t.Errorf("port %d is not that of %s", port, name)
		}
	}
	if has(SocketPort, "") || has(PeerPort, "") {
		t.Error("the ports of streams whose protocol is not known are those of a protocol")
	}
	if d := Of("dbus"); !strings.Contains(string(all), "\n"+d.Table+"\t"+strconv.Itoa(int(d.Value))+"\tdbus\n") {
		t.Errorf("D-Bus is not at %+v", d)
	}
}

func TestCheck(t *testing.T) {
	for _, good := range []string{"http", "dbus", "9p", "netlink-route", "x.25", "A_b"} {
		if err := Check(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "a b", "a;b", "a,b", "ä", "\x1b[0m", strings.Repeat("x", Limit+1)} {
		if Check(bad) == nil {
			t.Errorf("%q is a name", bad)
		}
	}
}

// What is decoded by itself is a whole message of D-Bus, whatever comes behind it.
func TestFits(t *testing.T) {
	message := func(order binary.AppendByteOrder, mark byte, fields, body uint32) []byte {
		b := order.AppendUint32([]byte{mark, 1, 0, 1}, body)
		b = order.AppendUint32(order.AppendUint32(b, 1), fields)
		return append(b, make([]byte, (fields+7)&^7+body)...)
	}
	little, big := message(binary.LittleEndian, 'l', 13, 5), message(binary.BigEndian, 'B', 16, 0)
	for _, whole := range [][]byte{little, big, append(little, big[:7]...)} {
		if !Fits("dbus", whole, len(whole)) || !Fits("dbus", whole[:20], len(whole)) {
			t.Errorf("% x is no message", whole)
		}
	}
	for _, part := range [][]byte{nil, little[:15], little[:16], little[:len(little)-1], little[1:], []byte("\x00AUTH EXTERNAL 30\r\n"), []byte("little by little, more comes")} {
		if Fits("dbus", part, len(part)) {
			t.Errorf("% x is a message", part)
		}
	}
	if Fits("http", nil, 0) || !Fits("http", []byte("x"), 1) {
		t.Error("of others all but nothing is decoded")
	}
}
