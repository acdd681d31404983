package capture

import (
	"testing"
	"time"
)

func TestClock(t *testing.T) {
	t.Parallel()
	c, err := newClock()
	if err != nil {
		t.Fatal(err)
	}
	if step, err := c.stepped(); step != 0 || err != nil {
		t.Errorf("a clock that nobody set was set by %v, %v", step, err)
	}
	c.offset -= int64(time.Hour)
	if step, err := c.stepped(); step.Round(time.Millisecond) != time.Hour || err != nil {
		t.Errorf("set by %v, %v, want an hour", step, err)
	}
	before := time.Now().UnixNano()
	c.offset += int64(time.Hour)
	at := c.wall(bootNow())
	after := time.Now().UnixNano()
	if at < before-c.bound || at > after+c.bound {
		t.Errorf("%d is not between %d and %d", at, before, after)
	}
}
