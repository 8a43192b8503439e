package kmsg

import (
	"errors"
	"testing"
	"time"
)

// clockAt gives a clock that shows wall and now, and whose lag cannot be
// measured but for the given answers.
func clockAt(wall time.Time, now time.Duration, measured ...time.Duration) *clock {
	return &clock{wall: wall, now: now, measure: func() (time.Duration, error) {
		if len(measured) == 0 {
			return 0, errors.New("not allowed")
		}
		lag := measured[0]
		measured = measured[1:]
		return lag, nil
	}}
}

func TestTimeOfARecordAllowsForTheLag(t *testing.T) {
	wall := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	c := clockAt(wall, time.Hour, 3*time.Second)
	c.remeasure()
	if got, want := c.at(time.Hour-13*time.Second), wall.Add(-10*time.Second); !got.Equal(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestLiveRecordsBoundTheLag(t *testing.T) {
	const late = 100 * time.Millisecond
	for name, c := range map[string]struct {
		lag      time.Duration
		known    bool
		quiet    time.Duration // since lag was set
		seen     time.Duration
		measured []time.Duration
		want     time.Duration
	}{
		"the first one tells it":                 {seen: late, want: late},
		"the first one tells it, if negative":    {seen: -late, want: -late},
		"a smaller one is better":                {lag: late, known: true, seen: 3, want: 3},
		"a larger one was late":                  {lag: 3, known: true, seen: late, want: 3},
		"it may have grown by 500 ppm":           {known: true, quiet: 200 * time.Second, seen: time.Second, want: late},
		"it may have grown by less":              {known: true, quiet: 400 * time.Second, seen: late, want: late},
		"a much larger one asks for measurement": {lag: 3, known: true, seen: time.Minute, measured: []time.Duration{time.Minute - 5}, want: time.Minute - 5},
	} {
		t.Run(name, func(t *testing.T) {
			k := clockAt(time.Now(), time.Hour, c.measured...)
			k.lag, k.known, k.lagSince = c.lag, c.known, k.now-c.quiet
			k.received(k.now - c.seen)
			if k.lag != c.want || !k.known || k.lagSince != k.now {
				t.Errorf("got lag %v (known %v, since %v), want %v", k.lag, k.known, k.lagSince, c.want)
			}
		})
	}
}

func TestClockFollowsTheWallClock(t *testing.T) {
	c := clock{measure: func() (time.Duration, error) { return 0, nil }}
	if err := c.start(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(c.at(c.now)); d < 0 || d > time.Minute {
		t.Errorf("now is %v ago", d)
	}
	mono := c.now
	c.tick()
	if c.now < mono {
		t.Errorf("monotonic clock went back from %v to %v", mono, c.now)
	}
}
