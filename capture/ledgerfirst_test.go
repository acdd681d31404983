package capture

import (
	"fmt"
	"testing"
)

// TestWhoseLosses holds which interface of a view has its losses: the first one that has packets, or whose
// socket has some in other views, or else the first one.
func TestWhoseLosses(t *testing.T) {
	t.Parallel()
	views := []View{ViewKernel, ViewDrop}
	for _, test := range []struct {
		kernel, drop [3]uint64
		want         int
	}{
		{[3]uint64{}, [3]uint64{}, 0},
		{[3]uint64{0, 5, 6}, [3]uint64{}, 1},
		{[3]uint64{0, 5, 6}, [3]uint64{0, 0, 2}, 2},
		{[3]uint64{}, [3]uint64{0, 3, 2}, 1},
	} {
		g := &ledger{views: views}
		for i := range test.kernel {
			p := newOutlet(mustKind(t, "udp"), views, "", 0)
			p.lanes[ViewKernel].handed, p.lanes[ViewDrop].handed = test.kernel[i], test.drop[i]
			g.outlets = append(g.outlets, p)
		}
		if got := g.first(ViewDrop); got != g.outlets[test.want].lanes[ViewDrop] {
			t.Errorf("%s: not that of the socket %d", fmt.Sprint(test.kernel, test.drop), test.want)
		}
	}
}
