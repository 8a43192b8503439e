package detector

import (
	"maps"
	"strings"
	"time"
)

// mergeSpan is how far apart two reporters may tell of the same Xid.
const mergeSpan = 2 * time.Second

// mergeWindow counts the reports of one Xid by reporter, for as long as
// mergeSpan after the first. The kernel log and NVML tell of the same fault, NVML
// perhaps by an event of another type too: the largest of the counts is how often
// it happened.
type mergeWindow struct {
	Code  int               `json:"code"`
	Start time.Time         `json:"start"`
	Last  time.Time         `json:"last"`
	By    map[string]uint64 `json:"by"`
}

// reporter is who tells of an Xid: a source, or a driver event that stands for it.
func (e *Event) reporter() string {
	if e.Kind == KindDriverEvent {
		return string(KindDriverEvent) + "/" + e.Fields["type"]
	}
	return e.Source
}

// news is what a report adds: faults of which no reporter has told, and Xids.
type news struct{ faults, xids uint64 }

// merge notes one report and says what it adds: no fault if another reporter has
// told of it already. It returns the windows that remain.
func merge(windows []mergeWindow, code int, reporter string, at time.Time) ([]mergeWindow, news) {
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
		kept = append(kept, mergeWindow{Code: code, Start: at, Last: at})
		place = len(kept) - 1
	}
	w := &kept[place]
	before := w.count()
	w.By = maps.Clone(w.By)
	if w.By == nil {
		w.By = map[string]uint64{}
	}
	w.By[reporter]++
	if at.After(w.Last) {
		w.Last = at
	}
	is := w.count()
	return kept, news{faults: is.faults - before.faults, xids: is.xids - before.xids}
}

// takes reports whether a report belongs to the window: it came in its time, or
// it is the one that its reporter still owed when the time was over.
func (w *mergeWindow) takes(reporter string, at time.Time) bool {
	if at.Sub(w.Start).Abs() <= mergeSpan {
		return true
	}
	return w.By[reporter] < w.count().faults && at.Sub(w.Last).Abs() <= mergeSpan
}

func (w *mergeWindow) count() news {
	var most news
	for reporter, n := range w.By {
		most.faults = max(most.faults, n)
		if !strings.HasPrefix(reporter, string(KindDriverEvent)) {
			most.xids = max(most.xids, n)
		}
	}
	return most
}
