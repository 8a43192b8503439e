package client

import "time"

// hold keeps back what fails again and again, for a while that doubles.
type hold struct {
	pause time.Duration
	until time.Time
	cause error
}

const (
	firstHold   = 100 * time.Millisecond
	longestHold = 5 * time.Second
	// forgiven is how long there must have been no failure after a hold for the
	// next one to be short again.
	forgiven = 10 * time.Second
)

func (h *hold) fail(cause error) {
	now := time.Now()
	if now.Sub(h.until) > forgiven {
		h.pause = 0
	}
	h.pause = min(max(firstHold, 2*h.pause), longestHold)
	h.until, h.cause = now.Add(h.pause), cause
}

// err is the cause while the hold lasts.
func (h *hold) err() error {
	if time.Now().Before(h.until) {
		return h.cause
	}
	return nil
}
