package client

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestRationTellsTheFirstFewAndThenOneAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r ration
		told, most := 0, 0
		for range 10 * 60 { // ten minutes of one a second
			if more, ok := r.take(); ok {
				told++
				most = max(most, more)
			}
			time.Sleep(time.Second)
		}
		if told != rationFirst+9 || most != 59 {
			t.Errorf("told %d times, of %d more at most; want %d times and 59", told, most, rationFirst+9)
		}
		time.Sleep(rationFirst * rationGap)
		for i := range rationFirst {
			more, ok := r.take()
			if !ok || i > 0 && more != 0 {
				t.Errorf("after a quiet time: the %dth is told %t, of %d more; want each", i, ok, more)
			}
		}
		if _, ok := r.take(); ok {
			t.Error("one too many is told")
		}
	})
}
