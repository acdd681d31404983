package remark

import (
	"strconv"
	"strings"

	"github.com/ebpfdump/ebpfdump/capture"
)

// A list of ids looks like "4-6, 9 and 3 ranges more, to 17".
const (
	nextRange  = ", "
	andMore    = " and "
	rangesMore = " ranges more, to "
)

// parsedRanges bounds the ranges of a list that is read.
const parsedRanges = 32

func appendIDs(b []byte, ids *capture.IDs) []byte {
	for i, span := range ids.Ranges {
		if i > 0 {
			b = append(b, nextRange...)
		}
		b = strconv.AppendUint(b, span[0], 10)
		if span[0] != span[1] {
			b = strconv.AppendUint(append(b, '-'), span[1], 10)
		}
	}
	if ids.More > 0 {
		b = strconv.AppendInt(append(b, andMore...), int64(ids.More), 10)
		b = strconv.AppendUint(append(b, rangesMore...), ids.Last, 10)
	}
	return b
}

// parseIDs parses a non-empty list.
func parseIDs(text string) (ids capture.IDs, ok bool) {
	list, more, found := strings.Cut(text, andMore)
	if found {
		count, last, ok := numbersIn(more, "", rangesMore, "")
		if !ok || count == 0 || count > 1<<31-1 {
			return capture.IDs{}, false
		}
		ids.More, ids.Last = int(count), last
	}
	n := 1 + strings.Count(list, nextRange)
	if n > parsedRanges {
		return capture.IDs{}, false
	}
	ids.Ranges = make([][2]uint64, 0, n)
	for item := range strings.SplitSeq(list, nextRange) {
		first, last, several := strings.Cut(item, "-")
		from, ok := number64(first)
		to := from
		if ok && several {
			to, ok = number64(last)
			ok = ok && from < to
		}
		if !ok {
			return capture.IDs{}, false
		}
		ids.Ranges = append(ids.Ranges, [2]uint64{from, to})
	}
	return ids, true
}
