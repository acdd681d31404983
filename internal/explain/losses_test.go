package explain

import (
	"slices"
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/capture"
)

// saidOf is what an explanation says of a kind of socket under a topic.
func saidOf(t *testing.T, e *Explanation, kind, topic string) string {
	t.Helper()
	for _, s := range e.Report.Sockets {
		if s.Kind != kind {
			continue
		}
		for _, f := range s.Findings {
			if f.Topic == topic {
				return f.Text
			}
		}
	}
	return ""
}

// TestLossesOfSeveralKinds has losses of each view in a file with two kinds of socket: they are told of once, and
// of neither kind it is said that there was nothing.
func TestLossesOfSeveralKinds(t *testing.T) {
	t.Parallel()
	views := map[capture.View][2]string{ // topic, and what is said where there is nothing
		capture.ViewKernel: {"tap", "lost nothing"}, capture.ViewUser: {"lost", "All payload"}, capture.ViewSent: {"sent", "Nothing"},
		capture.ViewCgroup: {"cgroup", "Nothing"}, capture.ViewWire: {"wire", "Nothing"}, capture.ViewDrop: {"drop", "Nothing"},
	}
	for v, said := range views {
		for _, lost := range []uint64{0, 8929} {
			r := newRecording()
			r.datagram("one")
			r.read(udpUser, 1, "one")
			packets := map[capture.View]uint64{capture.ViewKernel: 1, capture.ViewUser: 1}
			for _, kind := range []string{"tcp", "udp"} {
				for of := range views {
					at := &capture.Interface{Kind: kind, View: of, Layer: capture.LayerNetwork}
					switch {
					case kind == "udp" && of == capture.ViewKernel:
						at = udpKernel
					case kind == "udp" && of == capture.ViewUser:
						at = udpUser
					case of == capture.ViewUser || of == capture.ViewSent:
						at.Layer = capture.LayerMessage
					}
					st := capture.Statistics{Interface: at}
					if kind == "udp" {
						st.Delivered = packets[of]
					}
					if kind == "tcp" && of == v {
						st.Dropped = lost
					}
					st.Received = st.Delivered + st.Dropped
					r.interfaces, r.statistics = append(r.interfaces, at), append(r.statistics, st)
				}
			}
			e := r.explain(t)
			once := saidOf(t, e, "tcp", said[0]) + saidOf(t, e, "udp", said[0])
			if n := strings.Count(once, "8,929"); n != int(min(lost, 1)) {
				t.Errorf("%s, %d lost: %q", v, lost, once)
			}
			if got := saidOf(t, e, "udp", said[0]); strings.Contains(got, "it is counted with tcp") != (lost > 0) || lost > 0 && strings.Contains(got, said[1]) {
				t.Errorf("%s, %d lost: %q", v, lost, got)
			}
			for _, s := range e.Report.Sockets {
				if slices.Contains(s.Undivided, v.String()) != (lost > 0) {
					t.Errorf("%s, %d lost: %s: %q", v, lost, s.Kind, s.Undivided)
				}
			}
		}
	}
}
