package detector

import (
	"fmt"
	"slices"
	"time"
)

// fallsSilent notes that a GPU which has answered does not any more, since a time since
// boot. It is no fault. Where people know why, for the GPU is lost or somebody has
// paused, nothing is noted; nor at the start and under a new loading of the driver,
// before the first answer.
func (f *folding) fallsSilent(g *GPU, since time.Duration, cause string) {
	lost := slices.ContainsFunc(g.Conditions, func(c Condition) bool { return c.Reason == GPULost })
	if !g.answers() || lost {
		return
	}
	g.Silent = max(since, 1)
	f.noteGPU(g, NotedSilent, cause)
}

// tooOld does so for a GPU whose last answer is too old, if it was asked since. One
// that nobody asks is not silent.
func (f *folding) tooOld(g *GPU) {
	e := &f.event
	ago, err := time.ParseDuration(e.Fields["ago"])
	if err != nil {
		return
	}
	f.fallsSilent(g, e.Mono-ago, fmt.Sprintf("no answer for %s: %s", ago.Round(time.Second), e.Fields["cause"]))
}

// answersAgain notes the end of a silence that was noted.
func (f *folding) answersAgain(g *GPU) {
	if g.Silent == 0 {
		return
	}
	silence := f.event.Mono - g.Silent
	g.Silent = 0
	f.noteGPU(g, NotedAnswers, fmt.Sprintf("silent for %s", silence.Round(time.Second)))
}
