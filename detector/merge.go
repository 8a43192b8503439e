package detector

import (
	"maps"
	"time"
)

// mergeSpan is how far apart two reporters may tell of the same Xid.
const mergeSpan = 2 * time.Second

// mergeWindow counts the reports of one Xid by reporter, for as long as
// mergeSpan after the first. The kernel log and NVML tell of the same fault:
// the larger of the two counts is how often it happened.
type mergeWindow struct {
	Code  int               `json:"code"`
	Start time.Time         `json:"start"`
	Last  time.Time         `json:"last"`
	By    map[string]uint64 `json:"by"`
}

// merge notes one report and says how many new faults it stands for: 0 if the
// other reporter has told of it already. It returns the windows that remain.
func merge(windows []mergeWindow, code int, reporter string, at time.Time) ([]mergeWindow, uint64) {
	kept := make([]mergeWindow, 0, len(windows)+1)
	place := -1
	for _, w := range windows {
		if at.Sub(w.Last) > 2*mergeSpan {
			continue
		}
		kept = append(kept, w)
		if w.Code == code && place < 0 && w.takes(reporter, at) {
			place = len(kept) - 1
		}
	}
	if place < 0 {
		return append(kept, mergeWindow{Code: code, Start: at, Last: at, By: map[string]uint64{reporter: 1}}), 1
	}
	w := &kept[place]
	before := w.count()
	w.By = maps.Clone(w.By)
	w.By[reporter]++
	if at.After(w.Last) {
		w.Last = at
	}
	return kept, w.count() - before
}

// takes reports whether a report belongs to the window: it came in its time, or
// it is the one that its reporter still owed when the time was over.
func (w *mergeWindow) takes(reporter string, at time.Time) bool {
	if at.Sub(w.Start).Abs() <= mergeSpan {
		return true
	}
	return w.By[reporter] < w.count() && at.Sub(w.Last).Abs() <= mergeSpan
}

func (w *mergeWindow) count() uint64 {
	var most uint64
	for _, n := range w.By {
		most = max(most, n)
	}
	return most
}
