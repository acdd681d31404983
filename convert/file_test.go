package convert

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/ebpfdump/ebpfdump/capture"
)

// disk is a Target that records the calls.
type disk struct {
	bytes.Buffer
	room     int // 0 for enough
	check    error
	finished int
	failure  error // of Finish
}

func (d *disk) Write(b []byte) (int, error) {
	if d.room > 0 && d.Len()+len(b) > d.room {
		n, _ := d.Buffer.Write(b[:d.room-d.Len()])
		return n, errFull
	}
	return d.Buffer.Write(b)
}

func (d *disk) Check() error { return d.check }

func (d *disk) Finish(failure error) error {
	d.finished++
	d.failure = failure
	return nil
}

// writables are all formats that packets of a kind of socket can be written in.
func writables() []*Format {
	all := []*Format{}
	for _, f := range Formats(true) {
		all = append(all, &f)
	}
	lines := Lines(LineOptions{})
	return append(all, lines)
}

// Nothing reaches a target before the first packet, and no file remains if it fails
// before that; what was written after that stays.
func TestFileIsHeld(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	p := datagram(t, udpKernel, client4, server4, probe)
	for _, form := range writables() {
		for name, test := range map[string]struct {
			write   func(*File) error
			failure error
			written bool
		}{
			"not begun":           {func(*File) error { return nil }, nil, false},
			"begun and failed":    {func(f *File) error { return errors.Join(f.Begin(WriteOptions{}), f.AddInterface(udpKernel)) }, broken, false},
			"flushed and failed":  {func(f *File) error { return errors.Join(f.Begin(WriteOptions{}), f.Flush()) }, broken, false},
			"without packets":     {func(f *File) error { return f.Begin(WriteOptions{}) }, nil, true},
			"released and failed": {func(f *File) error { return errors.Join(f.Begin(WriteOptions{}), f.Release()) }, broken, true},
			"packet and failed":   {func(f *File) error { return errors.Join(f.Begin(WriteOptions{}), f.WritePacket(p)) }, broken, true},
		} {
			d := &disk{}
			file := NewFile(d, form)
			if err := test.write(file); err != nil {
				t.Fatalf("%s, %s: %v", form.Name, name, err)
			}
			if file.Held() && d.Len() > 0 {
				t.Errorf("%s, %s: %d bytes were handed on before the end", form.Name, name, d.Len())
			}
			err := errors.Join(file.End(test.failure), file.End(test.failure))
			if err != nil || d.finished != 1 || file.Failure() != nil {
				t.Errorf("%s, %s: %v, finished %d times, failure %v", form.Name, name, err, d.finished, file.Failure())
			}
			if test.written != (d.failure == nil) || !test.written && d.Len() > 0 {
				t.Errorf("%s, %s: finished with %v, %d bytes", form.Name, name, d.failure, d.Len())
			}
		}
	}
}

// Every format accepts a complete capture and leaves out what it has no room for, but
// never a packet.
func TestFileTakesAll(t *testing.T) {
	t.Parallel()
	p := datagram(t, udpKernel, client4, server4, probe)
	for _, form := range writables() {
		d := &disk{}
		file := NewFile(d, form)
		err := errors.Join(file.Begin(WriteOptions{Section: Section{Application: "test"}}),
			file.AddInterface(udpKernel), file.WritePacket(p), file.WritePacket(p))
		waiting := file.Buffered()
		if err = errors.Join(err, file.Flush()); err != nil || waiting == 0 || file.Buffered() != 0 {
			t.Fatalf("%s: %v, %d bytes waited and %d do", form.Name, err, waiting, file.Buffered())
		}
		if err := file.End(nil, someStatistics(udpKernel)); err != nil || file.Written() != 2 {
			t.Errorf("%s: %v, %d packets written", form.Name, err, file.Written())
		}
		if form.Readable() {
			if got := mustRead(t, &d.Buffer, ReadOptions{}); len(got) != 2 || !bytes.Equal(got[0].Data[len(got[0].Data)-len(p.Data):], p.Data) {
				t.Errorf("%s: read %d packets", form.Name, len(got))
			}
		}
	}
}

// On a full disk the number of packets in the file is known, whatever their source.
func TestFileOnFullDisk(t *testing.T) {
	t.Parallel()
	p := datagram(t, udpKernel, client4, server4, probe)
	var packets []*capture.Packet
	for range 100 {
		packets = append(packets, p)
	}
	in, err := os.ReadFile(writeFile(t, packets...))
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := Open(bytes.NewReader(in), nil, ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	items := itemsOf(foreign.Reader)
	d := &disk{room: 2000}
	file := NewFile(d, Pcapng())
	if err := file.Begin(WriteOptions{From: []*Source{foreign}}); err != nil {
		t.Fatal(err)
	}
	for {
		item, err := items.NextItem()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = file.WriteItem(item)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := file.End(nil); !errors.Is(err, errFull) || !errors.Is(file.Failure(), errFull) || !errors.Is(d.failure, errFull) {
		t.Errorf("%v, failure %v, finished with %v", err, file.Failure(), d.failure)
	}
	there := read(t, &d.Buffer, ReadOptions{CutOff: true})
	if n := len(there.packets); there.err != nil || file.Written() != uint64(n) || n == 0 || n == len(packets) {
		t.Errorf("%d packets written, %d are there: %v", file.Written(), n, there.err)
	}
}

// A change of the file by another process is a failure.
func TestFileThatChanges(t *testing.T) {
	t.Parallel()
	changed := errors.New("changed")
	d := &disk{check: changed}
	file := NewFile(d, Pcapng())
	err := errors.Join(file.Begin(WriteOptions{}), file.WritePacket(datagram(t, udpKernel, client4, server4, probe)))
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Flush(); !errors.Is(err, changed) || !errors.Is(file.Failure(), changed) {
		t.Errorf("%v, failure %v", err, file.Failure())
	}
}
