package capture

import (
	"context"
	"fmt"
)

// trims tells whether a verdict keeps some bytes of a packet, and not all.
func trims(verdict int32, length uint32) bool {
	return verdict > 0 && uint32(verdict) < length
}

// verdictComment says what the filter decided, unless that is to keep everything.
func verdictComment(verdict int32, length uint32) string {
	switch {
	case verdict == 0:
		return "verdict=0 (dropped by the filter)"
	case trims(verdict, length):
		return fmt.Sprintf("verdict=%d of %d (truncated by the filter)", verdict, length)
	}
	return ""
}

// join makes one comment of two, of which either may be empty.
func join(first, second string) string {
	if first == "" || second == "" {
		return first + second
	}
	return first + "; " + second
}

// excuse turns a failure of the probe into a notice if it is the filter that
// does not let the probe through: that is what the user wants to see.
func (s *Session) excuse(ctx context.Context, failure error) error {
	if s.config.Verdict == nil {
		return failure
	}
	_ = s.settle(ctx, Counts{}) // the counts must be those of the whole probe
	counts, err := s.Counts()
	if err != nil || counts.Tap.Dropped == 0 && counts.Trimmed == 0 {
		return failure
	}
	s.config.Notice("the filter kept something from the probe: " + failure.Error())
	return nil
}
