package main

import (
	"context"
	"iter"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"gpuvet.dev/detector"
)

const incidents = "../../testdata/incidents/"

// leastIncidents is how many there must be.
const leastIncidents = 30

func incidentFiles(t *testing.T) []*incidentFile {
	t.Helper()
	paths, err := filepath.Glob(incidents + "*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var files []*incidentFile
	for _, path := range paths {
		files = append(files, readIncident(t, path))
	}
	if len(files) < leastIncidents {
		t.Errorf("%d incidents in %s, expected %d", len(files), incidents, leastIncidents)
	}
	return files
}

func (f *incidentFile) name() string { return strings.TrimSuffix(filepath.Base(f.path), ".txtar") }

// Each incident goes through the real sources, detector and outputs. What its
// file expects is what is right, with the reason.
func TestIncidents(t *testing.T) {
	for _, f := range incidentFiles(t) {
		t.Run(f.name(), func(t *testing.T) {
			p := play(t, f)
			if len(strings.Fields(f.section("why"))) < 10 {
				t.Error("why is this the right verdict?")
			}
			if *update {
				for _, name := range outputSections {
					if p.outputs[name] != "" || f.section(name) != "" {
						f.set(name, p.outputs[name])
					}
				}
				f.write(t)
				return
			}
			var diffs []string
			for _, name := range outputSections {
				want, got := plain(f.section(name)), plain(p.outputs[name])
				if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(taken(want, got), "\n")); diff != "" {
					diffs = append(diffs, name+" (-want +got):\n"+diff)
				}
			}
			if len(diffs) > 0 {
				t.Errorf("%s\n%s", f.path, strings.Join(diffs, "\n"))
			}
		})
	}
}

// How the events of an incident come to be folded does not matter: as they
// happened, once more from nothing, or by a daemon that is started again, with
// what it saved, after every one of them.
func TestIncidentsFoldAlikeHoweverTheyAreFolded(t *testing.T) {
	for _, f := range incidentFiles(t) {
		t.Run(f.name(), func(t *testing.T) {
			p := play(t, f)
			again := play(t, f)
			alike(t, "played again", p, again.told, again.snapshot)

			var told []detector.Transition
			for transition, err := range detector.Replay(detector.DefaultPolicy(), p.events()) {
				if err != nil {
					t.Fatal(err)
				}
				told = append(told, transition)
			}
			d := detector.New(detector.Config{Policy: detector.DefaultPolicy()})
			for _, a := range p.emitted {
				d.Emit(a.event)
			}
			alike(t, "in one go", p, told, d.Snapshot())

			for _, a := range p.emitted {
				if a.event.Boot == p.boot {
					d.Emit(a.event)
				}
			}
			alike(t, "met again", p, told, d.Snapshot())

			told, snapshot := restarted(t, p.emitted)
			alike(t, "restarted after each event", p, told, snapshot)
		})
	}
}

func alike(t *testing.T, how string, p *played, told []detector.Transition, snapshot *detector.Snapshot) {
	t.Helper()
	if diff := cmp.Diff(p.told, told, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s: transitions (-played +%s):\n%s", how, how, diff)
	}
	if diff := cmp.Diff(p.snapshot, snapshot, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s: snapshot (-played +%s):\n%s", how, how, diff)
	}
}

func (p *played) events() iter.Seq2[detector.Event, error] {
	return func(yield func(detector.Event, error) bool) {
		for _, a := range p.emitted {
			if !yield(a.event, nil) {
				return
			}
		}
	}
}

// restarted folds each event by a detector of its own, which knows what the one
// before saved, at the time at which it was emitted.
func restarted(t *testing.T, emitted []arrival) (told []detector.Transition, snapshot *detector.Snapshot) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		disk := &machine{t: t}
		var saved detector.Saved
		for _, a := range emitted {
			time.Sleep(time.Until(a.at))
			d := detector.New(detector.Config{Policy: detector.DefaultPolicy(), Saved: saved, Store: disk, Trail: disk})
			d.Emit(a.event)
			ctx, kill := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- d.Run(ctx) }()
			synctest.Wait()
			kill()
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			snapshot = d.Snapshot()
			var err error
			if saved, err = detector.DecodeSaved(disk.payload); err != nil {
				t.Fatal(err)
			}
		}
		told = disk.told()
	})
	return told, snapshot
}
