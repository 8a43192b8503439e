package client

import (
	"time"

	"go.uber.org/zap"
)

// ration lets the first few of many alike be told, then one a minute.
type ration struct {
	full   time.Time // when those that were told count no more
	untold int       // since the last that was told
}

const (
	rationFirst = 5
	rationGap   = time.Minute
)

// take says whether one more is told, and how many before it were not.
func (r *ration) take() (more int, ok bool) {
	now := time.Now()
	if r.full.Before(now) {
		r.full = now
	}
	if r.full.Sub(now) > (rationFirst-1)*rationGap {
		r.untold++
		return 0, false
	}
	r.full = r.full.Add(rationGap)
	more, r.untold = r.untold, 0
	return more, true
}

// untold is how a log line says that there were more.
func untold(more int) zap.Field {
	if more == 0 {
		return zap.Skip()
	}
	return zap.Int("more", more)
}
