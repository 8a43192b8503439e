package node

import (
	"math/rand/v2"
	"time"
)

// bucket holds the writes that may be made. What may not wait takes from it all
// the same, down to a debt of one burst: who comes later waits for it.
type bucket struct {
	burst float64
	every time.Duration // one more
	level float64
	since time.Time // of level
}

func newBucket(burst int, every time.Duration, now time.Time) *bucket {
	return &bucket{burst: float64(burst), every: every, level: float64(burst), since: now}
}

func (b *bucket) fill(now time.Time) {
	b.level = min(b.burst, b.level+float64(now.Sub(b.since))/float64(b.every))
	b.since = now
}

func (b *bucket) take(now time.Time) {
	b.fill(now)
	b.level = max(b.level-1, -b.burst)
}

// ready is when there is one to take; not after now if there is.
func (b *bucket) ready(now time.Time) time.Time {
	b.fill(now)
	if b.level >= 1 {
		return now
	}
	return now.Add(time.Duration((1-b.level)*float64(b.every)) + time.Millisecond)
}

const (
	firstRetry = 200 * time.Millisecond
	// lastRetry leaves a second of the ten within which a write follows the API
	// server's return.
	lastRetry = 9 * time.Second
)

// backoff is the pause after so many failures, counted from the start of the
// last attempt: an attempt that hung has waited already.
func backoff(failures int) time.Duration {
	pause := min(firstRetry<<min(failures-1, 10), lastRetry)
	return time.Duration(float64(pause) * (0.5 + 0.5*rand.Float64()))
}
