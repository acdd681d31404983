package capture

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

// message is what a keeper hears of a capture, which ends in the middle of a word.
func message() []byte {
	classic := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 4}, {Code: unix.BPF_RET | unix.BPF_K, Jt: 1, Jf: 2, K: 0xffff}}
	var b []byte
	b = keepMessage(b, keepProcess, 10)
	b = keepMessage(b, keepProcess, 11)
	b = append(b, socketMessage(100, classic)...)
	b = append(b, socketMessage(101, nil)...)
	b = append(b, socketMessage(102, nil)...)
	b = keepMessage(b, keepGone, 102)
	b = keepMessage(b, keepPort, 8080)
	b = keepMessage(b, keepNotification, 7)
	return append(b, 1, 2, 3)
}

func TestKeepsake(t *testing.T) {
	t.Parallel()
	k := newKeepsake()
	if err := k.read(bytes.NewReader(message())); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read ends with %v", err)
	}
	want := &keepsake{
		processes: []int{10, 11},
		sockets: map[uint64][]unix.SockFilter{
			100: {{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 4}, {Code: unix.BPF_RET | unix.BPF_K, Jt: 1, Jf: 2, K: 0xffff}},
			101: {},
		},
		ports: map[uint16]bool{8080: true},
		held:  7,
	}
	if !reflect.DeepEqual(k, want) {
		t.Errorf("%+v, want %+v", k, want)
	}
}

func FuzzKeepsake(f *testing.F) {
	f.Add(message())
	f.Add(keepMessage(keepMessage(nil, keepSocket, 1), keepFilter, 1<<63))
	f.Fuzz(func(_ *testing.T, data []byte) {
		_ = newKeepsake().read(bytes.NewReader(data))
	})
}
