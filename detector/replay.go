package detector

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"gpuvet.dev/detector/kmsg"
	"gpuvet.dev/detector/xid"
)

// Replay folds recorded events from nothing, and yields what changed, in
// order. Deadlines fire up to the last event. The policy holds until an event
// brings another: no file is needed for that.
func Replay(p *Policy, events iter.Seq2[Event, error]) iter.Seq2[Transition, error] {
	return func(yield func(Transition, error) bool) {
		state, base := &State{}, p
		for e, err := range events {
			if err != nil {
				if !yield(Transition{}, err) {
					return
				}
				continue
			}
			before := state.Policy
			var transitions []Transition
			if state, transitions, _ = fold(state, p, e); state.Policy != before {
				p = base.inForce(state)
			}
			for _, t := range transitions {
				if !yield(t, nil) {
					return
				}
			}
		}
	}
}

// Located is an event of a saved log, and where it stands there.
type Located struct {
	xid.Line
	Number int // of the first line of the event, from 1
	Time   time.Time
	Mono   time.Duration
}

// Saved logs name no boot.
const savedBoot = "saved"

// Lines finds the events of a saved kernel log. Who wrote a line is not judged.
func Lines(records iter.Seq2[kmsg.TextRecord, error]) iter.Seq2[Located, error] {
	return func(yield func(Located, error) bool) {
		var joiner xid.Joiner
		var numbers []int
		for rec, err := range records {
			if err != nil {
				if !yield(Located{}, err) {
					return
				}
				if !errors.Is(err, kmsg.ErrLongLine) {
					continue // there is no record with it
				}
			}
			numbers = append(numbers, rec.Line)
			line, back, ok := joiner.Next(rec.Text)
			if ok {
				first := numbers[max(0, len(numbers)-1-back)]
				if !yield(Located{Line: line, Number: first, Time: rec.Time, Mono: rec.Mono}, nil) {
					return
				}
			}
			numbers = numbers[max(0, len(numbers)-xid.JoinDepth):]
		}
	}
}

// FromLog gives the events of a saved kernel log. A log that tells no wall time
// counts from the Unix epoch; a line without any time has that of the line
// before.
func FromLog(lines iter.Seq2[Located, error]) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		last := time.Unix(0, 0).UTC()
		var first time.Time
		for l, err := range lines {
			if err != nil {
				if !yield(Event{}, err) {
					return
				}
				continue
			}
			e := FromLine(l.Line)
			e.ID = fmt.Sprintf("%s/%s/%d", savedBoot, SourceKernelLog, l.Number)
			e.Boot = savedBoot
			switch {
			case !l.Time.IsZero():
				last = l.Time
			case l.Mono >= 0:
				last = time.Unix(0, 0).UTC().Add(l.Mono)
			}
			if first.IsZero() {
				first = last
			}
			e.Time, e.Mono = last, l.Mono
			if l.Mono < 0 {
				e.Mono = max(last.Sub(first), 0) + 1
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// DecodeEntry reads the data of one record of the trail.
func DecodeEntry(data []byte) (Entry, error) {
	var e Entry
	if err := json.Unmarshal(data, &e); err != nil {
		return Entry{}, fmt.Errorf("decode the trail's record: %w", err)
	}
	return e, nil
}
