package convert

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/ebpfdump/ebpfdump/capture"
)

// shelf keeps the files of a series, and is a clock.
type shelf struct {
	files  []*disk
	begins []time.Time
	now    time.Time
}

func (s *shelf) next(at time.Time) (Target, error) {
	s.files, s.begins = append(s.files, new(disk)), append(s.begins, at)
	return s.files[len(s.files)-1], nil
}

// open begins a series.
func (s *shelf) open(t *testing.T, o SeriesOptions, interfaces ...*capture.Interface) *Series {
	t.Helper()
	o.Next, o.Now = s.next, func() time.Time { return s.now }
	o.Interfaces = func() []*capture.Interface { return interfaces }
	first, _ := s.next(s.now)
	series, err := NewSeries(first, Pcapng(), o)
	if err == nil {
		err = series.Begin(WriteOptions{Section: Section{Comment: "a day"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return series
}

// each reads every file, which must be complete, and calls a function with its packets and what its
// statistics say.
func (s *shelf) each(t *testing.T, do func(n int, packets []*capture.Packet, statistics map[string]capture.Statistics)) {
	t.Helper()
	for n, file := range s.files {
		if file.finished != 1 || file.failure != nil {
			t.Errorf("file %d was finished %d times, %v", n, file.finished, file.failure)
		}
		source, err := Open(bytes.NewReader(file.Bytes()), nil, ReadOptions{Name: fmt.Sprint(n)})
		if err != nil {
			t.Fatalf("file %d: %v", n, err)
		}
		packets, err := drain(source)
		if err != nil {
			t.Fatalf("file %d: %v", n, err)
		}
		statistics := make(map[string]capture.Statistics)
		for _, st := range source.Statistics() {
			statistics[st.Interface.Name()] = st
		}
		do(n, packets, statistics)
	}
}

// A day of a packet every ten seconds, with a pause in the night: files of an hour each, of which
// none is lost, none is twice, and none is in a file of another hour.
func TestSeriesOfADay(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 11, 26, 0, 20, 0, 0, time.UTC)
	for _, limits := range []SeriesLimits{{Interval: time.Hour}, {Duration: time.Hour}, {Interval: time.Hour, Packets: 100}} {
		s := shelf{now: begin}
		series := s.open(t, SeriesOptions{SeriesLimits: limits}, udpKernel, udpUser)
		var id uint64
		for ; s.now.Before(begin.Add(24 * time.Hour)); s.now = s.now.Add(10 * time.Second) {
			if hour := s.now.Hour(); hour >= 3 && hour < 5 {
				if err := series.Flush(); err != nil {
					t.Fatal(err)
				}
				continue
			}
			id++
			for _, i := range []*capture.Interface{udpKernel, udpUser} {
				p := datagram(t, i, client4, server4, probe)
				p.Time, p.ID = s.now.UnixNano(), id
				if i == udpKernel && id%1000 == 0 {
					p.Drops = 3
				}
				if err := series.WritePacket(p); err != nil {
					t.Fatal(err)
				}
			}
			if err := series.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		lost := id / 1000 * 3
		whole := []capture.Statistics{
			{Interface: udpKernel, Start: begin.UnixNano(), End: s.now.UnixNano(), Received: id + lost + 5, Delivered: id, Dropped: lost + 5, Accepted: id + lost + 5},
			{Interface: udpUser, Start: begin.UnixNano(), End: s.now.UnixNano(), Received: id, Delivered: id, Accepted: id},
		}
		if err := series.End(nil, whole...); err != nil {
			t.Fatal(err)
		}
		if series.Written() != 2*id || series.Files() != len(s.files) || len(s.files) < 22 {
			t.Errorf("%+v: %d packets of %d in %d files of %d", limits, series.Written(), 2*id, series.Files(), len(s.files))
		}
		var seen uint64
		sums := make(map[string]capture.Statistics)
		s.each(t, func(n int, packets []*capture.Packet, statistics map[string]capture.Statistics) {
			count := make(map[string]uint64)
			for _, p := range packets {
				name := p.Interface.Name()
				count[name]++
				if p.Interface.View == capture.ViewKernel {
					if seen++; p.ID != seen {
						t.Errorf("file %d: packet %d, want %d", n, p.ID, seen)
					}
				}
				at := time.Unix(0, p.Time)
				if limits.Interval > 0 && !at.Truncate(limits.Interval).Equal(s.begins[n].Truncate(limits.Interval)) ||
					at.Before(s.begins[n]) || limits.Duration > 0 && at.Sub(s.begins[n]) >= limits.Duration {
					t.Errorf("file %d of %v has a packet of %v", n, s.begins[n], at)
				}
			}
			if limits.Packets > 0 && uint64(len(packets)) > limits.Packets {
				t.Errorf("file %d has %d packets", n, len(packets))
			}
			for _, name := range []string{"udp:kernel", "udp:user"} {
				st, sum := statistics[name], sums[name]
				if st.Delivered != count[name] || st.Received != st.Delivered+st.Dropped || st.Start < s.begins[n].UnixNano() {
					t.Errorf("file %d: %d packets of %s, %+v", n, count[name], name, st)
				}
				sum.Delivered += st.Delivered
				sum.Dropped += st.Dropped
				sum.Accepted += st.Accepted
				sums[name] = sum
			}
		})
		for _, st := range whole {
			if sum := sums[st.Interface.Name()]; sum.Delivered != st.Delivered || sum.Dropped != st.Dropped || sum.Accepted != st.Accepted {
				t.Errorf("%+v: all files together have %+v, the capture %+v", limits, sum, st)
			}
		}
	}
}

// What a capture filter leaves out is in the statistics of the file during which it came, at one interface of each view: at
// one that has packets there, of the last file at the one that the capture says.
func TestSeriesUnwanted(t *testing.T) {
	t.Parallel()
	s := shelf{now: time.Unix(1_800_000_000, 0)}
	other := *udpKernel
	other.Sockets = "another one"
	kernels := []*capture.Interface{udpKernel, &other}
	var unwanted uint64
	series := s.open(t, SeriesOptions{
		SeriesLimits: SeriesLimits{Packets: 2},
		Unwanted: func(v capture.View) (uint64, error) {
			if v != capture.ViewKernel {
				return 0, nil
			}
			return unwanted, nil
		},
	}, udpKernel, &other, udpUser)
	// Before each packet so many are left out; which interface it has changes with each file of two.
	before := []uint64{5, 0, 7, 1, 0, 0, 0}
	for n, left := range before {
		unwanted += left
		p := datagram(t, kernels[n/2%2], client4, server4, probe)
		p.Time, p.ID = s.now.UnixNano(), uint64(n+1)
		p.Verdict.Dropped = n == 0
		if err := series.WritePacket(p); err != nil {
			t.Fatal(err)
		}
	}
	unwanted += 20
	if err := series.End(nil,
		capture.Statistics{Interface: udpKernel, Received: 4 + 33, Delivered: 4, Unwanted: 33, Accepted: 3},
		capture.Statistics{Interface: &other, Received: 3, Delivered: 3, Accepted: 3}); err != nil {
		t.Fatal(err)
	}
	var got [][3]uint64 // unwanted, accepted and received
	for n, file := range s.files {
		source, err := Open(bytes.NewReader(file.Bytes()), nil, ReadOptions{Name: fmt.Sprint(n)})
		if err == nil {
			_, err = drain(source)
		}
		if err != nil {
			t.Fatal(err)
		}
		var sum [3]uint64
		for _, st := range source.Statistics() {
			sum[0], sum[1], sum[2] = sum[0]+st.Unwanted, sum[1]+st.Accepted, sum[2]+st.Received
			if st.Interface.View == capture.ViewUser && st.Received > 0 || n < len(s.files)-1 && st.Unwanted > 0 && st.Delivered == 0 {
				t.Errorf("file %d: %+v", n, st)
			}
		}
		got = append(got, sum)
	}
	// The packet that a file has no room for comes after what was left out before it.
	if want := [][3]uint64{{12, 1, 14}, {1, 2, 3}, {0, 2, 2}, {20, 1, 21}}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("unwanted, accepted and received: %v, want %v", got, want)
	}
}

// A file is ended when its time is over, and the next one begins then, although nothing comes; the last one ends
// the series. Each has all interfaces and their statistics, also of those of which nothing came.
func TestSeriesEndsInTime(t *testing.T) {
	t.Parallel()
	begin := time.Unix(1_800_000_000, 0)
	for _, limits := range []SeriesLimits{{Duration: time.Minute, Files: 4}, {Interval: time.Minute, Files: 4}} {
		s := shelf{now: begin}
		series := s.open(t, SeriesOptions{SeriesLimits: limits}, udpKernel, udpUser)
		p := datagram(t, udpKernel, client4, server4, probe)
		p.Time = s.now.UnixNano()
		if err := series.WritePacket(p); err != nil {
			t.Fatal(err)
		}
		hour := begin.Add(time.Hour)
		for _, step := range []struct {
			now, wakes time.Time
			files      int
		}{
			{begin.Add(59 * time.Second), begin.Add(time.Minute), 1},
			{begin.Add(time.Minute), begin.Add(time.Minute), 1},
			{begin.Add(time.Minute + lateness), begin.Add(2 * time.Minute), 2},
			{begin.Add(2*time.Minute + lateness), begin.Add(3 * time.Minute), 3},
			// As after a sleep of the machine: there are no files of the time in between.
			{hour.Add(lateness), hour.Add(time.Minute), 4},
			{hour.Add(time.Minute), hour.Add(time.Minute), 4},
		} {
			s.now = step.now
			if err := series.Flush(); err != nil {
				t.Fatal(err)
			}
			finished := 0
			for _, file := range s.files {
				finished += file.finished
			}
			if len(s.files) != step.files || finished != step.files-1 || !series.Wakes().Equal(step.wakes.Add(lateness)) {
				t.Errorf("after %v: %d files, of which %d are finished, and the next one at %v; want %d, %v",
					step.now.Sub(begin), len(s.files), finished, series.Wakes().Sub(begin), step.files, step.wakes.Sub(begin)+lateness)
			}
		}
		s.now = hour.Add(time.Minute + lateness)
		if err := series.Flush(); err != ErrSeriesEnded || !series.Wakes().IsZero() {
			t.Errorf("the last file: %v, wakes at %v", err, series.Wakes())
		}
		if err := series.End(nil); err != nil || len(s.files) != 4 {
			t.Errorf("%d files, %v", len(s.files), err)
		}
		s.each(t, func(n int, packets []*capture.Packet, statistics map[string]capture.Statistics) {
			want := uint64(0)
			if n == 0 {
				want = 1
			}
			user, ok := statistics["udp:user"]
			if kernel := statistics["udp:kernel"]; kernel.Delivered != want || uint64(len(packets)) != want || !ok || user.Received != 0 || user.Start != s.begins[n].UnixNano() {
				t.Errorf("file %d: %d packets, %+v, %+v", n, len(packets), kernel, user)
			}
		})
		for n, want := range []time.Time{begin, begin.Add(time.Minute), begin.Add(2 * time.Minute), hour} {
			if !s.begins[n].Equal(want) {
				t.Errorf("file %d begins %v after the first one, want %v", n, s.begins[n].Sub(begin), want.Sub(begin))
			}
		}
	}
}

// The size is that of the file, compressed or not, and the last file of a series ends it.
func TestSeriesOfSizes(t *testing.T) {
	t.Parallel()
	const limit = 100_000
	for _, compression := range []*Compression{nil, &Compressions[0], &Compressions[1]} {
		s := shelf{now: time.Unix(1_800_000_000, 0)}
		series := s.open(t, SeriesOptions{SeriesLimits: SeriesLimits{Bytes: limit, Files: 3}, Compression: compression}, udpKernel)
		var written int
		var err error
		for noise := uint64(1); err == nil; noise = noise*6364136223846793005 + 1442695040888963407 {
			p := datagram(t, udpKernel, client4, server4, fmt.Sprintf("%x %x %x", noise, noise*noise, ^noise))
			p.Time = s.now.UnixNano()
			if err = series.WritePacket(p); err == nil {
				written++
				err = series.Flush()
			}
		}
		if err != ErrSeriesEnded {
			t.Fatal(err)
		}
		if err := series.End(nil); err != nil {
			t.Fatal(err)
		}
		read := 0
		s.each(t, func(n int, packets []*capture.Packet, _ map[string]capture.Statistics) {
			read += len(packets)
			if size := s.files[n].Len(); size < limit || size > limit+1000 {
				t.Errorf("%v: file %d has %d bytes", compression, n, size)
			}
		})
		if len(s.files) != 3 || read != written || series.Written() != uint64(written) {
			t.Errorf("%v: %d packets read of %d in %d files", compression, read, written, len(s.files))
		}
	}
}

// Each file has the keys of all connections so far, before its packets.
func TestSeriesKeys(t *testing.T) {
	t.Parallel()
	s := shelf{now: time.Unix(1_800_000_000, 0)}
	series := s.open(t, SeriesOptions{SeriesLimits: SeriesLimits{Packets: 1}}, udpKernel)
	for n := range 3 {
		if err := series.WriteTLSKeys(fmt.Appendf(nil, "KEY %d\n", n)); err != nil {
			t.Fatal(err)
		}
		if err := series.WritePacket(datagram(t, udpKernel, client4, server4, probe)); err != nil {
			t.Fatal(err)
		}
	}
	if err := series.End(nil); err != nil {
		t.Fatal(err)
	}
	for n, want := range []string{"KEY 0\n", "KEY 0\nKEY 1\n", "KEY 0\nKEY 1\nKEY 2\n"} {
		var keys []byte
		source, err := Open(bytes.NewReader(s.files[n].Bytes()), nil, ReadOptions{Name: "in"})
		if err != nil {
			t.Fatal(err)
		}
		items, err := Merge(source)
		if err != nil {
			t.Fatal(err)
		}
		packets := 0
		for {
			item, err := items.NextItem()
			if err != nil {
				break
			}
			switch {
			case item.Packet != nil:
				packets++
			case item.block.kind == blockSecrets && packets == 0:
				keys = append(keys, bytes.TrimRight(item.block.body[8:], "\x00")...)
			}
		}
		if packets != 1 || string(keys) != want {
			t.Errorf("file %d: %d packets behind keys %q, want %q", n, packets, keys, want)
		}
	}
}

// Where a compressed file has no room for a frame, the frames before stay whole.
func TestCompressingWithoutRoom(t *testing.T) {
	t.Parallel()
	for _, c := range Compressions {
		d := &disk{room: 3000}
		to, err := c.Compress(d)
		if err != nil {
			t.Fatal(err)
		}
		f := NewFile(to, Pcapng())
		if err := f.Begin(WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		for err == nil {
			if err = f.WritePacket(datagram(t, udpKernel, client4, server4, probe)); err == nil {
				err = f.Flush()
			}
		}
		_ = f.End(err)
		source, err := Open(bytes.NewReader(d.Bytes()), nil, ReadOptions{Name: "in", CutOff: true})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for {
			if _, err := source.Reader.Next(); err != nil {
				break
			}
			n++
		}
		if uint64(n) != f.Written() || n == 0 {
			t.Errorf("%s: %d packets can be read, %d are said to be written", c.Name, n, f.Written())
		}
	}
}
