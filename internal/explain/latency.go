package explain

import (
	"math"
	"math/bits"
)

// histogram counts durations in buckets whose width is at most 1/128 of the value, so its
// size is fixed.
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

// bucket returns the index of a value's bucket. Below 256 every value has its own; above,
// each power of two is split into 128.
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
	// A read in the same nanosecond as its packet does not count: such times are
	// artificial.
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

// quantile returns the smallest value that this fraction of all values does not exceed.
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

// latency summarises the histogram; nil if it is empty.
func (h *histogram) latency() *Latency {
	if h.total == 0 {
		return nil
	}
	return &Latency{
		Reads: h.total, Least: h.least, Median: h.quantile(0.5), P99: h.quantile(0.99), Most: h.most,
		Negative: h.negative,
	}
}
