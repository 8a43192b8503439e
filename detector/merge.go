package detector

import (
	"maps"
	"slices"
	"time"
)

// mergeSpan is how far apart two reporters may tell of the same Xid.
const mergeSpan = 2 * time.Second

// mergeWindow counts the reports of one Xid by reporter, from the first of
// them on. The kernel log and NVML tell of the same fault: the larger of the
// two counts is how often it happened.
type mergeWindow struct {
	Code  int               `json:"code"`
	Start time.Time         `json:"start"`
	By    map[string]uint64 `json:"by"`
}

// merge notes one report and says how many new faults it stands for: 0 if the
// other reporter has told of it already. It returns the windows that remain.
func merge(windows []mergeWindow, code int, reporter string, at time.Time) ([]mergeWindow, uint64) {
	kept := make([]mergeWindow, 0, len(windows)+1)
	var news uint64
	found := false
	for _, w := range windows {
		age := at.Sub(w.Start)
		switch {
		case w.Code == code && age.Abs() <= mergeSpan && !found:
			found = true
			before := most(w.By)
			w.By = maps.Clone(w.By)
			w.By[reporter]++
			news = most(w.By) - before
		case age > 2*mergeSpan:
			continue
		}
		kept = append(kept, w)
	}
	if !found {
		kept = append(kept, mergeWindow{Code: code, Start: at, By: map[string]uint64{reporter: 1}})
		news = 1
	}
	return kept, news
}

func most(by map[string]uint64) uint64 {
	return slices.Max(slices.Collect(maps.Values(by)))
}
