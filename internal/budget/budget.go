// Package budget says when the API server may be written to: how often at most,
// and how soon again after a failure.
package budget

import (
	"math/rand/v2"
	"time"
)

// Bucket holds the writes that may be made. What may not wait takes from it all
// the same, down to a debt of one burst: who comes later waits for it.
type Bucket struct {
	burst float64
	every time.Duration // one more
	level float64
	since time.Time // of level
}

// New makes a full bucket of so many writes, into which one more comes each time.
func New(burst int, every time.Duration, now time.Time) *Bucket {
	return &Bucket{burst: float64(burst), every: every, level: float64(burst), since: now}
}

func (b *Bucket) fill(now time.Time) {
	b.level = min(b.burst, b.level+float64(now.Sub(b.since))/float64(b.every))
	b.since = now
}

// Take notes a write.
func (b *Bucket) Take(now time.Time) {
	b.fill(now)
	b.level = max(b.level-1, -b.burst)
}

// Ready is when there is one to take; not after now if there is.
func (b *Bucket) Ready(now time.Time) time.Time {
	b.fill(now)
	if b.level >= 1 {
		return now
	}
	return now.Add(time.Duration((1-b.level)*float64(b.every)) + time.Millisecond)
}

// The shortest and the longest pause after a failure.
const (
	FirstRetry = 200 * time.Millisecond
	// LastRetry leaves a second of the ten within which a write follows the API
	// server's return.
	LastRetry = 9 * time.Second
)

// Backoff is the pause after so many failures, counted from the start of the
// last attempt: an attempt that hung has waited already.
func Backoff(failures int) time.Duration {
	pause := min(FirstRetry<<min(failures-1, 10), LastRetry)
	return time.Duration(float64(pause) * (0.5 + 0.5*rand.Float64()))
}
