package pair

import (
	"slices"

	"github.com/tidwall/btree"
)

// segment is the part of a stream that one packet brought.
type segment struct {
	from, to int64 // offsets
	id       uint64
	known    []byte // bytes of its payload, if keepBytes asks for them
}

// segments are those of a stream that were not read to their end, ordered by offset. Most
// arrive in that order, and are in a queue; those that do not, because they were retransmitted
// or reordered, are in a tree.
type segments struct {
	queue []segment
	begin int // index into queue: those before it are forgotten
	late  *btree.BTreeG[lateSegment]
	count uint64 // how many arrived out of order so far
}

// lateSegment keeps segments with the same offset in the order of their arrival.
type lateSegment struct {
	segment
	order uint64
}

func (s *segments) len() int {
	n := len(s.queue) - s.begin
	if s.late != nil {
		n += s.late.Len()
	}
	return n
}

func (s *segments) add(new segment) {
	if n := len(s.queue); n == s.begin || s.queue[n-1].from <= new.from {
		s.queue = append(s.queue, new)
		return
	}
	if s.late == nil {
		s.late = btree.NewBTreeGOptions(func(a, b lateSegment) bool {
			return a.from < b.from || a.from == b.from && a.order < b.order
		}, btree.Options{NoLocks: true})
	}
	s.count++
	s.late.Set(lateSegment{new, s.count})
}

// eachBefore calls do with the segments that begin before an offset, ordered by offset.
func (s *segments) eachBefore(to int64, do func(*segment)) {
	at := s.begin
	queued := func(before int64) {
		for ; at < len(s.queue) && s.queue[at].from < before; at++ {
			do(&s.queue[at])
		}
	}
	if s.late != nil && s.late.Len() > 0 {
		s.late.Scan(func(l lateSegment) bool {
			if l.from >= to {
				return false
			}
			queued(l.from + 1) // first those that arrived in order
			do(&l.segment)
			return true
		})
	}
	queued(to)
}

// spanningLimit is how many segments that a read used partly are kept: if there are more, sent
// again and again, the oldest are forgotten.
const spanningLimit = 64

// drop forgets the segments up to an offset. Of those that extend beyond it, the rest is kept.
func (s *segments) drop(to int64) {
	end := s.begin
	for end < len(s.queue) && s.queue[end].from < to {
		end++
	}
	kept := end
	for at := end - 1; at >= s.begin && end-kept < spanningLimit; at-- {
		if s.queue[at].to > to {
			kept--
			s.queue[kept] = s.queue[at].behind(to)
		}
	}
	s.begin = kept
	// Compacting only when half is gone makes its cost constant per segment.
	if s.begin > len(s.queue)/2 {
		s.queue = slices.Delete(s.queue, 0, s.begin)
		s.begin = 0
	}
	if s.late == nil {
		return
	}
	spanning := 0
	for first, ok := s.late.Min(); ok && first.from < to; first, ok = s.late.Min() {
		s.late.Delete(first)
		if first.to > to && spanning < spanningLimit {
			spanning++
			first.segment = first.behind(to)
			s.late.Set(first)
		}
	}
	if s.late.Len() == 0 {
		s.late = nil
	}
}

// behind is the part of a segment after an offset in it.
func (s segment) behind(offset int64) segment {
	s.known = s.known[min(offset-s.from, int64(len(s.known))):]
	s.from = offset
	return s
}
