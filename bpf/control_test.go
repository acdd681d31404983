package bpf

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// What recvmsg says of a message besides its bytes: the flags, and which ancillary data there
// is, in an event before the message's own.
func TestCallsSeeAncillaryData(t *testing.T) { eachWay(t, checkCallsSeeAncillaryData) }

func checkCallsSeeAncillaryData(t *testing.T) {
	receiver, sender := udpPair(t)
	for _, option := range []int{unix.IP_PKTINFO, unix.IP_RECVTTL} {
		if err := unix.SetsockoptInt(receiver, unix.SOL_IP, option, 1); err != nil {
			t.Fatal(err)
		}
	}
	r := mustFollow(t, CallsOptions{RingSize: MinRingSize}, receiver)
	buf, oob := make([]byte, 4), make([]byte, 100)
	for _, room := range []int{0, unix.CmsgSpace(12), len(oob)} {
		if err := unix.Send(sender, []byte("longer than that"), 0); err != nil {
			t.Fatal(err)
		}
		_, n, flags, _, err := unix.Recvmsg(receiver, buf, oob[:room], 0)
		if err != nil {
			t.Fatal(err)
		}
		want, err := unix.ParseSocketControlMessage(oob[:n])
		if err != nil {
			t.Fatal(err)
		}
		got := slices.DeleteFunc(events(t, r), func(e Event) bool { return e.Kind() != CallControl && !e.Kind().Receives() })
		message := got[len(got)-1]
		if int(message.MsgFlags) != flags || flags&unix.MSG_TRUNC == 0 || message.HasControl() != (n > 0) || int(message.Room) != len(buf) {
			t.Errorf("%+v, the call said %#x, and had %d bytes of ancillary data", message, flags, n)
		}
		if n == 0 {
			if len(got) != 1 {
				t.Errorf("%+v", got)
			}
			continue
		}
		h, ok := got[0].Controls()
		if len(got) != 2 || !ok || got[0].Tid != message.Tid || got[0].Control != message.Control || message.Control == 0 || got[0].Cpu != message.Cpu || h.Rest != 0 {
			t.Fatalf("%+v: %+v", got, h)
		}
		for i, c := range h.All {
			switch {
			case i >= len(want) && c.Len != 0:
				t.Errorf("%+v is none of %+v", c, want)
			case i < len(want) && (uint64(c.Len) != want[i].Header.Len || c.Level != want[i].Header.Level || c.Type != want[i].Header.Type):
				t.Errorf("%+v, want %+v", c, want[i].Header)
			}
		}
	}
	checkCallsLedger(t, r)
}
