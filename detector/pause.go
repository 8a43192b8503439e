package detector

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Pause is a time in which NVML is closed, so that a GPU can be reset or the
// driver unloaded. Its GPUs are not monitored meanwhile: what is known of them
// stands, and nothing says that they are well. The kernel log is read on.
type Pause struct {
	Since time.Time     `json:"since"`
	Until time.Time     `json:"until"` // as the wall clock stood when it began, for people
	Ends  time.Duration `json:"ends"`  // the same since boot: this one counts
	// By is who asked: [ByHand], [ByAnnotation] or [ByUpgrade].
	By     string `json:"by"`
	Author string `json:"author,omitempty"`
	Why    string `json:"why,omitempty"`
}

// Who asks for a pause.
const (
	ByHand       = "hand"
	ByAnnotation = "annotation"     // of the node
	ByUpgrade    = "driver-upgrade" // the GPU Operator's, by its label on the node
)

// Other annotations of the node that ask for something, in [Requests].
const (
	ByClear  = "clear"
	ByIgnore = "ignore"
)

// Requests is what the node asks for by its annotations and its label, as far as
// that was dealt with.
type Requests struct {
	// Handled has the value that was dealt with, by who asks. The same value is
	// not begun again before it has been another, or none.
	Handled map[string]string `json:"handled,omitempty"`
	// Refused says what is wrong with the value, by who asks.
	Refused map[string]string `json:"refusals,omitempty"`
}

// How long a pause lasts at least and at most: one that was forgotten must not
// blind us for ever.
const (
	MinPause = time.Second
	MaxPause = 24 * time.Hour
)

// ParsePause reads how long a pause is to last.
func ParsePause(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < MinPause || d > MaxPause {
		return 0, fmt.Errorf("%q: expected a duration from 1s to 24h, such as 10m", text)
	}
	return d, nil
}

// String says who has paused, until when, and why.
func (p *Pause) String() string {
	text := fmt.Sprintf("paused %s until %s", whose(p.By, p.Author), p.Until.UTC().Format(time.RFC3339))
	if p.Why != "" {
		text += ": " + p.Why
	}
	return text
}

func whose(by, author string) string {
	text := map[string]string{ByHand: "by hand", ByAnnotation: "by the node's annotation", ByUpgrade: "for the driver's upgrade"}[by]
	if author != "" {
		text += " (" + author + ")"
	}
	return text
}

// pause begins a pause in place of the one that there may be. It leaves a longer
// one of somebody else as it is: what that is for goes on.
func (f *folding) pause() {
	e, s := &f.event, f.next
	length, err := ParsePause(e.Fields["for"])
	if err != nil {
		return
	}
	by := e.Fields["by"]
	f.handled(by, e.Fields["value"], "")
	p := &Pause{
		Since: e.Time, Until: e.Time.Add(length), Ends: s.Mono + length,
		By: by, Author: e.Fields["author"], Why: e.Fields["why"],
	}
	if s.Pause != nil && by != s.Pause.By && s.Pause.Ends > p.Ends {
		return
	}
	s.Pause = p
	f.holdFrom(p.Ends)
	f.note(NotedPaused, p.String(), e.Time)
}

// resume ends the pause. The annotation and the label end only what they began.
func (f *folding) resume() {
	e, s := &f.event, f.next
	by := e.Fields["by"]
	if by != ByHand {
		f.handled(by, "", "")
	}
	if s.Pause != nil && (by == ByHand || by == s.Pause.By) {
		f.endPause(strings.TrimSpace("resumed "+whose(by, e.Fields["author"])), e.Time, s.Mono)
	}
}

// refuse notes an annotation that cannot be used. Nothing else changes.
func (f *folding) refuse() {
	f.handled(ByAnnotation, f.event.Fields["value"], f.event.Fields["cause"])
}

// handled notes the value that was dealt with; empty: there is none any more.
func (f *folding) handled(by, value, refused string) {
	if by == ByHand {
		return
	}
	r := &f.next.Requests
	r.Handled, r.Refused = noted(r.Handled, by, value), noted(r.Refused, by, refused)
}

// noted is a map with a value under a key; an empty one is none.
func noted(was map[string]string, key, value string) map[string]string {
	is := maps.Clone(was)
	switch {
	case value == "":
		delete(is, key)
	case is == nil:
		is = map[string]string{key: value}
	default:
		is[key] = value
	}
	return is
}

// endPause ends the pause at a time, on both clocks.
func (f *folding) endPause(cause string, at time.Time, mono time.Duration) {
	f.next.Pause = nil
	f.holdFrom(mono)
	for i, g := range f.next.GPUs {
		place := slices.IndexFunc(g.Conditions, isUnmonitored)
		if place < 0 {
			continue
		}
		g = f.own(i)
		over := g.Conditions[place]
		g.Conditions = slices.Delete(slices.Clone(g.Conditions), place, place+1)
		f.tell(g.PCI, over, Cleared, cause, at)
	}
	f.note(NotedResumed, cause, at)
}

// holdFrom has every hold begin then: nobody sees meanwhile whether a call has
// returned.
func (f *folding) holdFrom(mono time.Duration) {
	held := func(c Condition) bool { return c.Held != nil }
	for i, g := range f.next.GPUs {
		if !slices.ContainsFunc(g.Conditions, held) {
			continue
		}
		g = f.own(i)
		g.Conditions = slices.Clone(g.Conditions)
		for j := range g.Conditions {
			if c := &g.Conditions[j]; held(*c) {
				until := mono + f.policy.Reasons[c.Reason].Hold
				c.Held = &until
			}
		}
	}
}

// mark gives each GPU the condition that says so while nobody monitors it.
func (f *folding) mark() {
	p := f.next.Pause
	if p == nil {
		return
	}
	e, cause := &f.event, p.String()
	for i, g := range f.next.GPUs {
		place := slices.IndexFunc(g.Conditions, isUnmonitored)
		switch {
		case place < 0:
			c := Condition{
				Reason: Unmonitored, Class: Information, Scope: ScopeGPU, Effect: None, Action: ActNone, Taint: TaintUnmonitored,
				Cause: cause, Since: e.Time, Last: e.Time, Mono: e.Mono, Count: 1, Incident: e.ID, Fact: e.Source, Boot: f.next.Boot,
			}
			g = f.own(i)
			g.Conditions = append(slices.Clone(g.Conditions), c)
			f.tell(g.PCI, c, Raised, cause, e.Time)
		case g.Conditions[place].Cause != cause:
			g = f.own(i)
			g.Conditions = slices.Clone(g.Conditions)
			g.Conditions[place].Cause = cause
		}
	}
}

func isUnmonitored(c Condition) bool { return c.Reason == Unmonitored }

// answers reports whether the GPU answers and is asked at all.
func (g *GPU) answers() bool { return g.Fresh && !slices.ContainsFunc(g.Conditions, isUnmonitored) }
