package capture

import "context"

// Verdict is what the socket's filter decided about a packet. The zero Verdict keeps all of it.
type Verdict struct {
	// Dropped says that the socket did not get the packet.
	Dropped bool
	// Keep is how many bytes the socket got of a packet that the filter trimmed, and Of how
	// many the packet had, both counted from offset 0 of the kernel view. Both are 0 if it was
	// not trimmed.
	Keep, Of uint32
	// Asked says that this is what the filter, which the socket has of its own, answered when it
	// was asked afterwards: on the socket it may have decided otherwise. Unasked says that it is
	// asked, but could not be asked about this packet.
	Asked, Unasked bool
}

// trims tells whether a verdict keeps some bytes of a packet, but not all.
func trims(verdict int32, length uint32) bool {
	return verdict > 0 && uint32(verdict) < length
}

// verdictOf returns what a filter decided about a packet of so many bytes.
func verdictOf(verdict int32, length uint32) Verdict {
	switch {
	case verdict == 0:
		return Verdict{Dropped: true}
	case trims(verdict, length):
		return Verdict{Keep: uint32(verdict), Of: length}
	}
	return Verdict{}
}

// excuse turns a failure of the probe into a notice if the filter prevents the probe: that is
// what the user wants to see.
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
