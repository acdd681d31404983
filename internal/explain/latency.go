package explain

import (
	"math"
	"math/bits"
)

// histogram counts durations in buckets that are at most 1/128 of their value
// wide, so that its size is fixed whatever it holds.
type histogram struct {
	counts      []uint64
	total       uint64
	least, most int64
	negative    uint64
}

const (
	bucketBits = 7
	buckets    = (64 - bucketBits) << bucketBits
)

// bucket is a value's place: below 256 every value has its own, and every
// doubling above has 128 of them.
func bucket(v uint64) int {
	shift := max(bits.Len64(v)-bucketBits-1, 0)
	return shift<<bucketBits + int(v>>shift)
}

// middle is the value in the middle of a bucket.
func middle(i int) int64 {
	if i < 2<<bucketBits {
		return int64(i)
	}
	shift := i>>bucketBits - 1
	low := uint64(i-shift<<bucketBits) << shift
	return int64(low + uint64(1)<<shift/2)
}

func (h *histogram) add(ns int64) {
	// A read that returns with the packet in the same nanosecond is none: such
	// times are made up.
	if ns == 0 {
		return
	}
	if ns < 0 {
		h.negative++
		return
	}
	if h.counts == nil {
		h.counts = make([]uint64, buckets)
		h.least = ns
	}
	h.counts[bucket(uint64(ns))]++
	h.total++
	h.least, h.most = min(h.least, ns), max(h.most, ns)
}

// quantile is the least value that a part of all values does not exceed.
func (h *histogram) quantile(part float64) int64 {
	rank := uint64(max(math.Ceil(part*float64(h.total))-1, 0))
	for i, n := range h.counts {
		if rank < n {
			return min(max(middle(i), h.least), h.most)
		}
		rank -= n
	}
	return h.most
}

// latency is what the histogram says; nil if it is empty.
func (h *histogram) latency() *Latency {
	if h.total == 0 {
		return nil
	}
	return &Latency{
		Reads: h.total, Least: h.least, Median: h.quantile(0.5), P99: h.quantile(0.99), Most: h.most,
		Negative: h.negative,
	}
}
