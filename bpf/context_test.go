package bpf

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

var aside = Context{
	Protocol: unix.ETH_P_IP, Known: true, VLANProto: 0x8100, VLANTCI: 0x2064, Mark: 42, Priority: 6,
	GSOSize: 1448, GSOSegs: 45, Hash: 0x7eadbeef, Queue: 4,
}

// A filter finds beside a packet's bytes what was there when it was captured, or
// it is told what it does not.
func TestRunnerContext(t *testing.T) {
	t.Parallel()
	path := object(t, "beside", "-g")
	bare := Context{Protocol: unix.ETH_P_IP, Known: true}
	unknown := Context{Protocol: unix.ETH_P_IP}
	for _, test := range []struct {
		program string
		context Context
		want    int32
		missing []string
	}{
		{"tag", aside, -0x7effdf9c, nil}, // 0x81002064
		{"tag", Context{Known: true, VLANProto: 0x88a8}, -0x77580000, nil},
		{"tag", bare, -1, nil},
		{"tag", unknown, -1, []string{"vlan_present", "vlan_proto", "vlan_tci"}},
		{"mark", aside, 42, nil},
		{"mark", unknown, 0, []string{"mark"}},
		{"priority", aside, 6, nil},
		{"gso", aside, 45<<16 | 1448, nil},
		// The kernel counts 0 or 1 segment.
		{"gso", bare, 0, []string{"gso_segs"}},
		{"hash", aside, 0x7eadbeef, nil},
		{"queue", aside, 4, nil},
		{"scratch", aside, 0, []string{"vlan_tci"}},
		{"scratch", bare, 0, nil},
		{"protocol", aside, unix.ETH_P_IP, nil},
	} {
		t.Run(fmt.Sprint(test.program, test.context), func(t *testing.T) {
			t.Parallel()
			r := mustRunner(t, mustRead(t, path, test.program))
			packet := make([]byte, 60)
			got, missing, err := r.Run(packet, test.context)
			slices.Sort(missing)
			if err != nil || got != test.want || !slices.Equal(missing, test.missing) {
				t.Errorf("%#x, %q, %v, want %#x, %q", got, missing, err, test.want, test.missing)
			}
			if never := r.Never(); len(never) > 0 {
				t.Errorf("never: %q", never)
			}
		})
	}
}

// What comes to a filter without anything but its bytes says so.
func TestRunnerBare(t *testing.T) {
	t.Parallel()
	path := object(t, "beside", "-g")
	for program, want := range map[string]int32{"tag": -0x7effdf9c, "mark": 42, "hash": 0x7eadbeef, "protocol": unix.ETH_P_IP} {
		r := mustRunner(t, mustRead(t, path, program))
		for _, size := range []int{20, 60, 3000, 60000, 70000} {
			got, missing, err := r.Run(make([]byte, size), aside)
			if err != nil || (got == want) != (len(missing) == 0) {
				t.Errorf("%s, %d bytes: %#x, %q, %v", program, size, got, missing, err)
			}
			if size >= 40 && size <= 3000 && len(missing) > 0 {
				t.Errorf("%s, %d bytes: %q is missing", program, size, missing)
			}
		}
	}
}

func TestRunnerNever(t *testing.T) {
	t.Parallel()
	r := mustRunner(t, mustRead(t, object(t, "beside", "-g"), "never"))
	want := []string{"ifindex", "pkt_type", "bpf_get_socket_cookie", "bpf_ktime_get_ns", "bpf_skb_load_bytes_relative"}
	if got := r.Never(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
