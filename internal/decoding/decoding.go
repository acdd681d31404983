// Package decoding says how a file makes Wireshark take the bytes of a unix stream for those of
// some protocol.
package decoding

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Decoding is what makes Wireshark choose a dissector.
type Decoding struct {
	// Port is the TCP port by which Wireshark knows the protocol: bytes that stand in a stream get
	// it as the port of the other end, and are put together. 0 if there is none.
	Port uint16
	// Dissector is the name of a dissector that is called for the bytes of each call alone. It is
	// empty where Table is set: that is the table in which the dissector is number Value.
	Dissector string
	Table     string
	Value     uint32
}

// PeerPort is the port of the other end of a stream whose protocol Wireshark is to find by itself,
// and SocketPort that of the socket's own end. Neither is one of a protocol's.
const (
	SocketPort = 61001
	PeerPort   = 61002
)

// ports are the TCP ports by which Wireshark knows protocols that go through unix streams.
var ports = map[string]uint16{
	"http": 80, "tls": 443, "9p": 564, "mysql": 3306, "pgsql": 5432, "amqp": 5672, "x11": 6000, "resp": 6379,
	"memcache": 11211,
}

// dbus is the number of D-Bus in the table of link types: Wireshark 4.0 has no name for it, and its
// dissector for TCP ports stops at the lines with which a connection begins.
const dbus = 146

// Names lists the protocols that usually go through unix streams. Wireshark knows others besides.
func Names() []string {
	names := slices.AppendSeq([]string{"dbus"}, maps.Keys(ports))
	slices.Sort(names)
	return names
}

// Of returns the decoding that a name stands for.
func Of(name string) Decoding {
	d := Decoding{Port: ports[name], Dissector: name}
	if name == "dbus" {
		d = Decoding{Table: "wtap_encap", Value: dbus}
	}
	return d
}

// Alone tells whether the bytes of each call are decoded by themselves, wherever they are in a
// stream. An empty name is for what Wireshark finds by itself.
func Alone(name string) bool { return name != "" && ports[name] == 0 }

// Fits tells whether bytes of a message of that length can be decoded by themselves: of D-Bus those
// that begin with a whole message, and not the lines before the first one, or half a message.
func Fits(name string, b []byte, length int) bool {
	const head = 16
	if name != "dbus" {
		return length > 0
	}
	if len(b) < head || b[1] < 1 || b[1] > 4 || b[3] != 1 {
		return false
	}
	var order binary.ByteOrder
	switch b[0] {
	case 'l':
		order = binary.LittleEndian
	case 'B':
		order = binary.BigEndian
	default:
		return false
	}
	// The fields of the header have a length of their own, and are padded to 8 bytes.
	fields := (uint64(order.Uint32(b[12:])) + 7) &^ 7
	return head+fields+uint64(order.Uint32(b[4:])) <= uint64(length)
}

// Limit is the length of the longest name.
const Limit = 64

// Check tells why a name cannot be that of a dissector. Which there are depends on the Wireshark
// that reads the file.
func Check(name string) error {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r)
	}
	if name == "" || len(name) > Limit || strings.TrimFunc(name, plain) != "" {
		return fmt.Errorf("%q is not the name of a protocol in Wireshark, such as http or dbus", name)
	}
	return nil
}
