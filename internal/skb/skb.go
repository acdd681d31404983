// Package skb is the layout of struct __sk_buff, which is what a BPF program sees of a
// packet besides its bytes. It is part of the kernel's interface.
package skb

import "slices"

// Field is a field of struct __sk_buff, or of the struct bpf_sock that its sk
// points to (linux/bpf.h).
type Field struct {
	// Name is the field's name, such as "len", "cb[0]" or "sk.src_port".
	Name string

	// Offset is where the field is, in bytes, and Size how long.
	Offset int16
	Size   int
	// InSock: the field is one of struct bpf_sock.
	InSock bool
}

// Sock is the pointer to the socket.
var Sock = Field{Name: "sk", Offset: 168, Size: 8}

var fields = []Field{
	{"len", 0, 4, false},
	{"pkt_type", 4, 4, false},
	{"mark", 8, 4, false},
	{"queue_mapping", 12, 4, false},
	{"protocol", 16, 4, false},
	{"vlan_present", 20, 4, false},
	{"vlan_tci", 24, 4, false},
	{"vlan_proto", 28, 4, false},
	{"priority", 32, 4, false},
	{"ingress_ifindex", 36, 4, false},
	{"ifindex", 40, 4, false},
	{"tc_index", 44, 4, false},
	{"cb[0]", 48, 4, false},
	{"hash", 68, 4, false},
	{"tc_classid", 72, 4, false},
	{"data", 76, 4, false},
	{"data_end", 80, 4, false},
	{"napi_id", 84, 4, false},
	{"family", 88, 4, false},
	{"remote_ip4", 92, 4, false},
	{"local_ip4", 96, 4, false},
	{"remote_ip6[0]", 100, 4, false},
	{"local_ip6[0]", 116, 4, false},
	{"remote_port", 132, 4, false},
	{"local_port", 136, 4, false},
	{"data_meta", 140, 4, false},
	{"flow_keys", 144, 8, false},
	{"tstamp", 152, 8, false},
	{"wire_len", 160, 4, false},
	{"gso_segs", 164, 4, false},
	Sock,
	{"gso_size", 176, 4, false},
	{"tstamp_type", 180, 1, false},
	{"hwtstamp", 184, 8, false},
	{"sk.bound_dev_if", 0, 4, true},
	{"sk.family", 4, 4, true},
	{"sk.type", 8, 4, true},
	{"sk.protocol", 12, 4, true},
	{"sk.mark", 16, 4, true},
	{"sk.priority", 20, 4, true},
	{"sk.src_ip4", 24, 4, true},
	{"sk.src_ip6[3]", 40, 4, true},
	{"sk.src_port", 44, 4, true},
	{"sk.dst_port", 48, 2, true},
	{"sk.dst_ip4", 52, 4, true},
	{"sk.dst_ip6[3]", 68, 4, true},
	{"sk.state", 72, 4, true},
	{"sk.rx_queue_mapping", 76, 4, true},
}

// Reuseport lists the fields of struct sk_reuseport_md, which is what a program that chooses a
// socket of a group gets (linux/bpf.h).
func Reuseport() []Field {
	return []Field{
		{"data", 0, 8, false},
		{"data_end", 8, 8, false},
		{"len", 16, 4, false},
		{"eth_protocol", 20, 4, false},
		{"ip_protocol", 24, 4, false},
		{"bind_inany", 28, 4, false},
		{"hash", 32, 4, false},
		{"sk", 40, 8, false},
		{"migrating_sk", 48, 8, false},
	}
}

// Fields lists the fields of __sk_buff, and then those behind its sk. Of arrays
// it has one element.
func Fields() []Field { return slices.Clone(fields) }

// Named finds a field by its name, which must be that of one.
func Named(name string) Field {
	return fields[slices.IndexFunc(fields, func(f Field) bool { return f.Name == name })]
}
