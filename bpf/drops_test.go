package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

func mustDrops(tb testing.TB, tap *Tap, hook *Hook, opts DropOptions) *Drops {
	tb.Helper()
	d, err := OpenDrops(tap, hook, opts)
	if missing := (*MissingError)(nil); errors.As(err, &missing) && errors.Is(err, errNoReasons) {
		if major, minor := version(); major > 5 || major == 5 && minor >= 17 {
			tb.Fatalf("Linux %d.%d has reasons: %v", major, minor, err)
		}
		if want := "needs the reasons that Linux 5.17 and newer give, and this is Linux " + release(); !strings.Contains(err.Error(), want) {
			tb.Errorf("%q, not %q", err, want)
		}
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := d.Close(); err != nil {
			tb.Error(err)
		}
	})
	return d
}

// socketDrops is how many packets a socket says that it dropped.
func socketDrops(tb testing.TB, fd int) uint64 {
	tb.Helper()
	var info [9]uint32 // SK_MEMINFO_DROPS is the last
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO, uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		tb.Fatal(errno)
	}
	return uint64(info[8])
}

// TestDropsOfFullQueue sends more than a receive queue has room for: each packet that the socket
// says it dropped is recorded, whole and with the reason, and none of a socket without a mark.
func TestDropsOfFullQueue(t *testing.T) {
	testutil.RequirePrivilege(t)
	tap := mustOpen(t, Options{RingSize: MinRingSize, Snaplen: MaxSnaplen})
	flows, err := NewFlows()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { flows.Close() })
	drops := mustDrops(t, tap, nil, DropOptions{Flows: flows})
	receiver, sender := testutil.UDPPair(t)
	other, otherSender := testutil.UDPPair(t)
	for _, fd := range []int{receiver, other} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4096); err != nil {
			t.Fatal(err)
		}
	}
	cookie, err := unix.GetsockoptUint64(receiver, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		t.Fatal(err)
	}
	// Before Linux 6.11 the kernel does not tell which socket it was, and the address does.
	if drops.TellsReceiver() {
		err = drops.Mark(receiver)
	} else {
		err = enterUDP(flows, receiver, cookie)
	}
	if err != nil {
		t.Fatal(err)
	}
	const sent = 40
	barrier := testutil.NewBarrier(t)
	for i := range sent {
		payload := binary.BigEndian.AppendUint32(make([]byte, 500), uint32(i))
		for _, fd := range []int{sender, otherSender} {
			barrier.Send(t, fd, payload)
		}
	}
	dropped := socketDrops(t, receiver)
	if dropped == 0 || dropped == sent || socketDrops(t, other) == 0 {
		t.Fatalf("the sockets dropped %d and %d of %d", dropped, socketDrops(t, other), sent)
	}
	all := records(t, tap)
	for i, rec := range all {
		if reason := drops.Reason(&rec); rec.Hook != HookDrop || reason != "SOCKET_RCVBUFF" || rec.Cookie != cookie || rec.Origin != cookie {
			t.Errorf("packet %d: hook %d, %s, cookie %d of %d", i, rec.Hook, reason, rec.Cookie, cookie)
		}
		want := uint32(sent - int(dropped) + i)
		if n := len(rec.Data); n != 20+8+504 || rec.Len != uint32(n) || rec.Before != 20 || binary.BigEndian.Uint32(rec.Data[n-4:]) != want {
			t.Errorf("packet %d has %d bytes of %d, %d before offset 0: %x", i, n, rec.Len, rec.Before, rec.Data[max(0, n-4):])
		}
		if !bytes.Equal(rec.NetHeader()[:20], rec.Data[:20]) {
			t.Errorf("packet %d: network header %x of %x", i, rec.NetHeader(), rec.Data[:20])
		}
		if where := drops.Location(&rec); !strings.Contains(where, "udp") {
			t.Errorf("packet %d was freed in %q", i, where)
		}
	}
	counters, missed, err := drops.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if want := (Counters{Seen: dropped, Recorded: dropped}); uint64(len(all)) != dropped || counters != want || missed != 0 {
		t.Errorf("%d records of %d drops: %+v, %d missed", len(all), dropped, counters, missed)
	}
}

// enterUDP enters a UDP socket of this network namespace.
func enterUDP(flows *Flows, fd int, cookie uint64) error {
	var st unix.Stat_t
	local, err := unix.Getsockname(fd)
	if err = errors.Join(err, unix.Stat("/proc/thread-self/ns/net", &st)); err != nil {
		return err
	}
	at := local.(*unix.SockaddrInet4)
	return flows.Enter(&FlowSocket{
		Network: uint32(st.Ino), Cookie: cookie, Origin: cookie, Family: unix.AF_INET, Type: unix.SOCK_DGRAM, Protocol: unix.IPPROTO_UDP,
		Local: netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port)),
	})
}

func TestDropFacts(t *testing.T) {
	t.Parallel()
	d := &Drops{dropFacts: dropFacts{reasons: map[uint32]string{6: "SOCKET_FILTER"}}}
	for number, want := range map[int32]string{6: "SOCKET_FILTER", 0x10003: "0x10003", 99: "0x63"} {
		if got := d.Reason(&Record{RecordHeader: RecordHeader{Verdict: number}}); got != want {
			t.Errorf("reason %d is %q, not %q", number, got, want)
		}
	}
	s := parseSymbols(strings.NewReader(fmt.Sprint(
		"ffffffff81000000 T _stext\nffffffff81000010 t first\nffffffff81000020 D data\nffffffff81000040 t second\x1b[1m\n",
		"ffffffff81000080 T third.isra.0\n0000000000000000 T hidden\nffffffffc0000000 t inner\t[module]\nffffffffa0000000 t early\t[other]\n")))
	for address, want := range map[uint64]string{
		0: "", 1: "", 0xffffffff81000000: "", 0xffffffff81000011: "first", 0xffffffff81000050: "first", 0xffffffff81000080: "first",
		0xffffffff81000081: "third.isra.0", 0xffffffffc0000001: "inner", 0xffffffffa0000100: "early", 0xffffffffd0000000: "",
	} {
		if got := s.at(address); got != want {
			t.Errorf("%x is in %q, not %q", address, got, want)
		}
	}
	if got := (*symbols)(nil).at(1); got != "" {
		t.Error(got)
	}
}

// TestDropReasons compares the names of the reasons with those that the library finds.
func TestDropReasons(t *testing.T) {
	t.Parallel()
	told, err := aboutDrops()
	if errors.Is(err, errNoReasons) {
		if major, minor := version(); major > 5 || major == 5 && minor >= 17 {
			t.Fatalf("Linux %d.%d has reasons: %v", major, minor, err)
		}
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	all, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	var want *btf.Enum
	if err := all.TypeByName(reasonType, &want); err != nil {
		t.Fatal(err)
	}
	for _, v := range want.Values {
		if got := told.reasons[uint32(v.Value)]; got != strings.TrimPrefix(v.Name, reasonPrefix) {
			t.Errorf("reason %d is %q, not %q", v.Value, got, v.Name)
		}
		if v.Name == reasonUsedUp && told.usedUp != uint32(v.Value) {
			t.Errorf("used up is %d, not %d", told.usedUp, v.Value)
		}
	}
	if len(told.reasons) != len(want.Values) {
		t.Errorf("%d reasons of %d", len(told.reasons), len(want.Values))
	}
}
