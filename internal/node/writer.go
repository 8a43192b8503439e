package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"gpuvet.dev/detector"
	"gpuvet.dev/internal/budget"
	"gpuvet.dev/internal/faultpoint"
)

const (
	// settling is how long after a start an Unknown is not told: a daemon that
	// is restarted needs a moment, and its GPUs are none the worse for it.
	settling = 15 * time.Second
	// siblings is how long after one piece of bad news the next ones wait for
	// each other, and good news waits for more: an inventory comes GPU by GPU.
	siblings = time.Second
	// writesBurst and writesEvery bound what a flapping GPU can make us write.
	writesBurst = 4
	writesEvery = 10 * time.Second
	// conflicts is how often in one round the list of taints is computed anew.
	conflicts = 5
	// idle is how long nothing is looked at if nothing happens.
	idle = time.Hour
)

// writer brings the node to what is desired, round by round.
type writer struct {
	*Output
	log     *zap.Logger
	budget  *budget.Bucket
	trouble complaint

	began    time.Time
	last     *Desired  // what the node was last brought to; nil: nothing yet
	badNews  time.Time // when the last was written
	goodNews time.Time // when there first was some to write; zero: there is none
	beatAt   time.Time // zero: not known yet
	retryAt  time.Time
	failures int
	unsaved  bool // the state knows of a taint that is not on disk
	reported string
}

func newWriter(o *Output) *writer {
	now := time.Now()
	return &writer{
		Output: o, log: o.options.Log, budget: budget.New(writesBurst, writesEvery, now), began: now,
		trouble: complaint{log: o.options.Log, about: "writing to the node"},
	}
}

// round does what is due now, and says when to look again.
func (w *writer) round(ctx context.Context) time.Time {
	now := time.Now()
	s, node := w.newest()
	switch {
	case s == nil:
		return now.Add(idle)
	case now.Before(w.retryAt):
		return w.retryAt
	case w.options.DryRun:
		w.pretend(s)
		return now.Add(idle)
	}
	if node == nil {
		if err := w.get(ctx); err != nil {
			return w.failed(ctx, now, err)
		}
		_, node = w.newest()
	}
	want, final := w.wanted(s)
	if until := w.began.Add(settling); now.Before(until) && passing(want) {
		return until
	}
	due, what := w.due(s, node, want, now)
	switch {
	case what == nothing:
		w.goodNews = time.Time{}
		if soon := now.Add(time.Second); !final && soon.Before(due) {
			return soon
		}
		return due
	case due.After(now):
		return due
	}
	if err := w.bring(ctx, want, what); err != nil {
		return w.failed(ctx, now, err)
	}
	if what == news && w.worse(want) {
		w.badNews = now
	}
	w.last, w.goodNews, w.failures = &want, time.Time{}, 0
	w.trouble.end()
	// What is left, if anything, the next round finds.
	return now
}

// wanted is what the node should say; final is false while the taint in it is only the
// one that is there, because it is not known yet whether single GPUs are fenced. To
// taint the node for one of them, at every restart, would keep work from all others,
// or end it.
func (w *writer) wanted(s *detector.Snapshot) (want Desired, final bool) {
	final = !w.options.Undecided()
	want = desired(s, w.options.Config, w.options.Fenced())
	if !final && w.options.Config.Taint == TaintAuto {
		want.Taint = nil
		if there := s.Applied.Taint; there != nil {
			want.Taint = &Taint{Value: there.Value, Effect: there.Effect}
		}
	}
	return want, final
}

// passing are the words of a start that a moment later are no longer true.
func passing(d Desired) bool {
	return d.Status == corev1.ConditionUnknown && d.Reason != reasonDriverMissing && d.Reason != reasonPaused
}

// work is what a round has to do.
type work int

const (
	nothing   work = iota
	books          // only our own books: nothing is written to the API server
	heartbeat      // the condition says the same, and says it again
	news           // the node must say something else
)

// due is what to do, and when: now, later, or, with nothing to do, when to look
// again.
func (w *writer) due(s *detector.Snapshot, node *observed, want Desired, now time.Time) (time.Time, work) {
	p := planTaint(node.taints, want.Taint, s.Applied.Taint, !w.unsaved, now)
	w.report(p.foreign, want.Taint)
	if !says(node.condition, want) || p.step == write || p.step == intend {
		return w.permitted(want, now), news
	}
	if p.step == confirm || p.step == forget {
		return now, books
	}
	if w.beatAt.IsZero() {
		w.beatAt = beat(node.condition.LastHeartbeatTime.Time, w.options.Config.Heartbeat.Duration)
	}
	if p.foreign == nil {
		w.applied(s.Seq, now)
	} else {
		w.hindered(foreignError(p.foreign))
	}
	if !now.Before(w.beatAt) {
		return now, heartbeat
	}
	next := w.beatAt
	if p.step == wait && p.until.Before(next) {
		next = p.until
	}
	return next, nothing
}

// permitted is when the node may be told something new: bad news at once,
// siblings together, all the rest when the budget has room.
func (w *writer) permitted(want Desired, now time.Time) time.Time {
	if w.worse(want) {
		if together := w.badNews.Add(siblings); together.After(now) {
			return together
		}
		return now
	}
	ready := w.budget.Ready(now)
	if w.last != nil && w.last.same(want) {
		return ready // somebody else has changed the node
	}
	if w.goodNews.IsZero() {
		w.goodNews = now
	}
	if together := w.goodNews.Add(siblings); together.After(ready) {
		return together
	}
	return ready
}

// worse reports whether this is bad news; the first word may be good.
func (w *writer) worse(want Desired) bool {
	if w.last == nil {
		return want.Status != corev1.ConditionTrue
	}
	return want.worseThan(*w.last)
}

// bring makes the node say what is wanted. The fence comes first; that it cannot
// be written does not keep the condition from being.
func (w *writer) bring(ctx context.Context, want Desired, what work) error {
	fence := w.bringTaint(ctx, want)
	if unreachable(fence) {
		return fence
	}
	return errors.Join(fence, w.bringCondition(ctx, want, what == heartbeat))
}

// bringTaint goes from step to step until the taint is settled.
func (w *writer) bringTaint(ctx context.Context, want Desired) error {
	for met := 0; ; {
		s, node := w.newest()
		if node == nil {
			return w.get(ctx)
		}
		p := planTaint(node.taints, want.Taint, s.Applied.Taint, !w.unsaved, time.Now())
		var err error
		switch p.step {
		case settled, wait:
			return nil
		case intend:
			err = w.remember(ctx, detector.KindTaintIntended, &p.intent)
			w.unsaved = err != nil
			faultpoint.Hit("taint-intended")
		case confirm:
			err = w.remember(ctx, detector.KindTaintApplied, s.Applied.Taint)
			faultpoint.Hit("taint-applied")
		case forget:
			err = w.remember(ctx, detector.KindTaintRemoved, s.Applied.Taint)
		case write:
			err = w.patch(ctx, types.JSONPatchType, locked(p.patch, node.version))
			if apierrors.IsConflict(err) && met < conflicts {
				met++
				err = w.get(ctx)
				break
			}
			if err == nil {
				faultpoint.Hit("taint-patched")
				w.budget.Take(time.Now())
				w.log.Info("node taint written", zap.Uint64("seq", s.Seq), zap.String("taint", want.Taint.String()))
			}
		}
		if err != nil {
			return err
		}
	}
}

// remember has the state note something about our taint, and waits for the disk.
func (w *writer) remember(ctx context.Context, kind detector.Kind, t *detector.AppliedTaint) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	s, err := w.options.Submit(ctx, detector.Event{Source: detector.SourceNode, Kind: kind, Fields: map[string]string{
		"value": t.Value, "effect": string(t.Effect), "added": t.Added.UTC().Format(time.RFC3339),
	}})
	w.take(s)
	if err != nil {
		return fmt.Errorf("remember the taint: %w: %w", errNotSaved, err)
	}
	return nil
}

func (w *writer) bringCondition(ctx context.Context, want Desired, refresh bool) error {
	s, node := w.newest()
	if node == nil || !refresh && says(node.condition, want) {
		return nil
	}
	now := time.Now()
	c := condition(node.condition, want, now)
	if err := w.patch(ctx, types.StrategicMergePatchType, patchOf(c), "status"); err != nil {
		return err
	}
	faultpoint.Hit("condition-patched")
	w.beatAt = beat(now, w.options.Config.Heartbeat.Duration)
	if !refresh {
		w.budget.Take(now)
		w.log.Info("node condition written", zap.Uint64("seq", s.Seq), zap.String("status", string(c.Status)),
			zap.String("reason", c.Reason), zap.String("message", c.Message))
	}
	return nil
}

// failed says when to try again.
func (w *writer) failed(ctx context.Context, began time.Time, err error) time.Time {
	if ctx.Err() != nil {
		return began.Add(idle)
	}
	w.failures++
	w.trouble.say(err)
	w.hindered(err)
	w.retryAt = began.Add(budget.Backoff(w.failures))
	if soon := time.Now().Add(budget.FirstRetry / 2); w.retryAt.Before(soon) {
		w.retryAt = soon
	}
	return w.retryAt
}

// report tells people, once per entry, that somebody else's holds our place.
func (w *writer) report(entry *corev1.Taint, want *Taint) {
	if entry == nil {
		w.reported = ""
		return
	}
	if text := foreignText(entry); w.reported != text {
		w.reported = text
		w.log.Warn("node taint is not written: the key is taken by an entry that is not ours",
			zap.String("taken", text), zap.String("taint", want.String()))
		w.events.tell(foreignEvent(w.options.NodeName, entry, time.Now()))
	}
}

func foreignText(t *corev1.Taint) string {
	text := fmt.Sprintf("%s=%s:%s", t.Key, t.Value, t.Effect)
	if t.TimeAdded != nil {
		text += ", added " + t.TimeAdded.UTC().Format(time.RFC3339)
	}
	return text
}

// ErrForeignTaint is what keeps our taint from being written while somebody
// else's entry holds its key and effect.
var ErrForeignTaint = errors.New("the node has a taint under our key that is not ours")

func foreignError(t *corev1.Taint) error {
	return fmt.Errorf("%w: %s", ErrForeignTaint, foreignText(t))
}

// pretend logs what a dry run does not write.
func (w *writer) pretend(s *detector.Snapshot) {
	want, _ := w.wanted(s)
	w.applied(s.Seq, time.Now())
	if w.last != nil && w.last.same(want) {
		return
	}
	w.last = &want
	w.log.Info("would write node condition and taint", zap.Uint64("seq", s.Seq), zap.String("status", string(want.Status)),
		zap.String("reason", want.Reason), zap.String("message", want.Message), zap.String("taint", want.Taint.String()))
}

func (d Desired) same(other Desired) bool {
	return d.Status == other.Status && d.Reason == other.Reason && d.Message == other.Message && d.Taint.String() == other.Taint.String()
}

// String is the entry as kubectl takes it; "none" for no taint.
func (t *Taint) String() string {
	if t == nil {
		return "none"
	}
	return fmt.Sprintf("%s=%s:%s", TaintKey, t.Value, t.Effect)
}
