package detector

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"sync"
	"time"

	"go.uber.org/zap"

	"gpuvet.dev/internal/faultpoint"
	"gpuvet.dev/internal/trail"
)

// Store keeps what must survive. Save replaces what was saved before, whole or
// not at all, and returns when it is on disk.
type Store interface {
	Save(payload []byte) error
}

// History keeps what happened. Append says whether the record was new; Sync
// returns when all that was appended is on disk.
type History interface {
	Append(r trail.Record) (bool, error)
	Sync() error
}

// Cursor is how far a reader has come: in the kernel log of a boot, or in the
// trail.
type Cursor struct {
	Boot string `json:"boot,omitempty"`
	Seq  uint64 `json:"seq"`
}

// Saved is the payload of the state file.
type Saved struct {
	State   *State            `json:"state"`
	Cursors map[string]Cursor `json:"cursors,omitempty"`
}

// DecodeSaved reads the payload of the state file.
func DecodeSaved(payload []byte) (Saved, error) {
	s := Saved{State: &State{}}
	if err := json.Unmarshal(payload, &s); err != nil {
		return Saved{}, fmt.Errorf("decode the saved state: %w", err)
	}
	return s, nil
}

// Entry is what one record of the trail holds: an event and what it changed, or
// what a deadline changed by itself.
type Entry struct {
	Event       *Event       `json:"event,omitempty"`
	Transitions []Transition `json:"transitions,omitempty"`
	// Repeats counts the events like this one that have no record: the same
	// Xid of the same GPU, since the record before and within a second of it,
	// changing nothing. Whoever can raise Xids at will must not flush the history.
	Repeats uint64 `json:"repeats,omitempty"`
}

// KindDeadline is the kind of trail records that stand for no event.
const KindDeadline Kind = "Deadline"

// Kept tells how the state and the trail are doing.
type Kept struct {
	SaveError  string    // of the last attempt; empty if it went well, or if there was none
	Saved      time.Time // last success
	TrailError string    // of the last append
	TrailLost  uint64    // records that the trail did not get
}

const (
	// lazySave is how long a change may wait for the disk if nobody waits for it.
	lazySave = time.Second
	// retrySave is the pause after a failed save.
	retrySave = 2 * time.Second
	// cursorSave is how often places are saved while nothing else happens.
	cursorSave = time.Minute
	// maxBacklog bounds what waits for a disk that does not answer. The last
	// quarter of it is for what changed something.
	maxBacklog = 4096
)

// keeper writes the trail and the state, in this order, from one goroutine of
// its own: a full or hanging disk delays no detection.
type keeper struct {
	store Store
	trail History
	log   *zap.Logger
	work  chan struct{} // something waits

	mu      sync.Mutex
	backlog []trailEntry
	repeats repeats
	state   *State
	last    uint64 // version of state
	wanted  uint64 // somebody waits for this version
	done    uint64 // highest version that was saved
	failed  uint64 // highest version whose saving was tried in vain
	failure error
	settled chan struct{} // closed and replaced after each attempt
	cursors map[string]Cursor
	moved   bool // a cursor did, since the last save
	report  Kept
}

type trailEntry struct {
	id, kind string
	at       time.Time
	entry    Entry
}

func newKeeper(c Config) *keeper {
	k := &keeper{
		store: c.Store, trail: c.Trail, log: c.Log, work: make(chan struct{}, 1),
		settled: make(chan struct{}), cursors: map[string]Cursor{}, state: c.Saved.State,
		repeats: repeats{},
	}
	maps.Copy(k.cursors, c.Saved.Cursors)
	return k
}

// keep takes over a new state, and the event that made it.
func (k *keeper) keep(s *State, e *Event, transitions []Transition) uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.state
	k.state = s
	k.last++
	entry := trailEntry{entry: Entry{Event: e, Transitions: transitions}}
	if e != nil {
		entry.id, entry.kind, entry.at = e.ID, string(e.Kind), e.Time
	} else {
		entry.id = fmt.Sprintf("%s/deadline/%d", s.Boot, s.Mono)
		entry.kind, entry.at = string(KindDeadline), s.Time
	}
	room := maxBacklog
	if len(transitions) == 0 && !e.saved() {
		room -= maxBacklog / 4
	}
	if e != nil && !e.repeatable() {
		// It may end, clear or hand on what they were about: in the trail they stand
		// before it, as they were folded.
		owed, _ := k.repeats.settle(s.Mono, true)
		for _, entry := range owed {
			k.queue(entry, maxBacklog-maxBacklog/4)
		}
	}
	if awaited(before, s, e) || !k.repeats.swallow(e, &entry.entry) {
		k.queue(entry, room)
	}
	k.poke()
	return k.last
}

// queue has a record wait for the disk, if no more than room of them do.
func (k *keeper) queue(entry trailEntry, room int) {
	if len(k.backlog) >= room {
		k.report.TrailLost++
		return
	}
	k.backlog = append(k.backlog, entry)
}

func (k *keeper) poke() {
	select {
	case k.work <- struct{}{}:
	default:
	}
}

func (k *keeper) version() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.last
}

// wait returns when a version is on disk, or could not be put there.
func (k *keeper) wait(ctx context.Context, version uint64) error {
	if k.store == nil {
		return nil
	}
	for {
		k.mu.Lock()
		k.wanted = max(k.wanted, version)
		done, failed, failure, settled := k.done, k.failed, k.failure, k.settled
		k.mu.Unlock()
		switch {
		case done >= version:
			return nil
		case failed >= version:
			return failure
		}
		k.poke()
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the disk: %w", ctx.Err())
		case <-settled:
		}
	}
}

// run writes until ctx ends, and then once more.
func (k *keeper) run(ctx context.Context) {
	var due <-chan time.Time
	quiet := time.NewTicker(cursorSave)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			k.settle(true)
			k.history()
			k.save()
			return
		case <-k.work:
			k.history()
			if due == nil {
				due = time.After(lazySave)
			}
			if !k.urgent() {
				continue
			}
		case <-due:
			due = nil
			if k.settle(false) {
				due = time.After(lazySave)
			}
		case <-quiet.C:
		}
		k.history()
		if !k.save() {
			due = time.After(retrySave)
		}
	}
}

func (k *keeper) urgent() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.wanted > max(k.done, k.failed)
}

// settle has the repeats recorded that nothing follows, or all of them, and reports
// whether there are others.
func (k *keeper) settle(all bool) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	entries, more := k.repeats.settle(k.state.Mono, all)
	k.backlog = append(k.backlog, entries...)
	return more
}

// history appends what waits to the trail.
func (k *keeper) history() {
	k.mu.Lock()
	backlog := k.backlog
	k.backlog = nil
	k.mu.Unlock()
	for _, entry := range backlog {
		faultpoint.Hit("folded")
		for _, t := range entry.entry.Transitions {
			k.tell(t)
		}
		if k.trail != nil {
			k.trailed(k.append(entry))
		}
	}
}

// tell logs what changed for people. It is done here, where nobody waits: the
// log may be a pipe that is full.
func (k *keeper) tell(t Transition) {
	if t.Status == Noted {
		fields := []zap.Field{zap.Uint64("seq", t.Seq), zap.String("what", string(t.Condition)), zap.String("cause", t.Cause)}
		if t.PCI != "" {
			fields = append(fields, zap.Intp("gpu", t.GPU), zap.String("pci", t.PCI), zap.String("uuid", t.UUID))
		}
		k.log.Info(cmp.Or(headlines[t.Condition], "noted"), fields...)
		return
	}
	k.log.Info("condition "+string(t.Status),
		zap.Uint64("seq", t.Seq), zap.Intp("gpu", t.GPU), zap.String("pci", t.PCI), zap.String("uuid", t.UUID),
		zap.String("reason", string(t.Condition)), zap.String("cause", t.Cause),
		zap.String("class", string(t.Class)), zap.String("effect", string(t.Effect)), zap.String("action", string(t.Action)))
}

// trailed notes how the trail took a record. Nothing is logged under the lock:
// the fold needs it, and the log may be a pipe that is full.
func (k *keeper) trailed(err error) {
	k.mu.Lock()
	before, lost := k.report.TrailError, k.report.TrailLost
	k.report.TrailError = ""
	if err != nil {
		k.report.TrailError = err.Error()
	}
	k.mu.Unlock()
	switch {
	case err != nil && before == "":
		k.log.Warn("trail does not take records; detection goes on", zap.Error(err))
	case err == nil && before != "":
		k.log.Info("trail takes records again", zap.Uint64("lost", lost))
	}
}

func (k *keeper) append(entry trailEntry) error {
	data, err := json.Marshal(entry.entry)
	if err != nil {
		return fmt.Errorf("encode %s: %w", entry.id, err)
	}
	if _, err = k.trail.Append(trail.Record{ID: entry.id, Kind: entry.kind, Time: entry.at, Data: data}); err != nil {
		k.mu.Lock()
		k.report.TrailLost++
		k.mu.Unlock()
	}
	return err
}

// save puts the newest state on disk. Cursors are taken before the state: a
// state that is ahead of its cursors knows what it has folded, a cursor ahead
// of its state would lose what lies between.
func (k *keeper) save() bool {
	k.mu.Lock()
	cursors := maps.Clone(k.cursors)
	version, state := k.last, k.state
	fresh := version > k.done || k.moved
	k.moved = false
	k.mu.Unlock()
	if k.store == nil || state == nil || !fresh {
		return true
	}
	payload, err := json.Marshal(Saved{State: state, Cursors: cursors})
	if err == nil && k.trail != nil {
		// A place in the trail must not outlive the records up to it. If they
		// cannot be put on disk, the state is saved all the same.
		if err := k.trail.Sync(); err != nil {
			k.trailed(err)
		}
	}
	if err == nil {
		err = k.store.Save(payload)
	}
	k.mu.Lock()
	before := k.report.SaveError
	if err != nil {
		k.failed, k.failure, k.moved = version, err, true
		k.report.SaveError = err.Error()
	} else {
		k.done = version
		k.report.SaveError, k.report.Saved = "", time.Now()
	}
	close(k.settled)
	k.settled = make(chan struct{})
	k.mu.Unlock()
	switch {
	case err != nil && before == "":
		k.log.Error("state is not saved; detection goes on", zap.Error(err))
	case err == nil && before != "":
		k.log.Info("state is saved again")
	}
	return err == nil
}

func (k *keeper) kept() Kept {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.report
}

func (k *keeper) cursor(name string) (Cursor, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, ok := k.cursors[name]
	return c, ok
}

func (k *keeper) setCursor(name string, c Cursor) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.moved = k.moved || k.cursors[name] != c
	k.cursors[name] = c
}
