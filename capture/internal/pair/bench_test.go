package pair

import "testing"

// BenchmarkPair is what it takes to pair a datagram.
func BenchmarkPair(b *testing.B) {
	for _, size := range []struct {
		name    string
		payload int
	}{{"64", 64}, {"1400", 1400}} {
		b.Run("bytes="+size.name, func(b *testing.B) {
			q := Datagrams{HeaderLen: 8}
			data := make([]byte, 8+size.payload)
			p := Packet{Src: client, Dst: server, Data: data, Len: len(data), Verdict: -1}
			d := Delivery{Data: data[8:], Full: size.payload, From: client, To: server}
			b.ReportAllocs()
			for b.Loop() {
				p.ID++
				q.Saw(&p, 0)
				if m := q.Delivered(&d); m.ID != p.ID {
					b.Fatal(m)
				}
			}
		})
	}
}
