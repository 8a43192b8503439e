package publish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/dynamic-resource-allocation/resourceslice"

	"gpuvet.dev/detector"
	"gpuvet.dev/dra/pool"
	"gpuvet.dev/internal/budget"
)

const (
	// settling is how long a start waits for every GPU's first answer. The slices of
	// the daemon before stand meanwhile.
	settling = 10 * time.Second
	// siblings is how long after one piece of bad news the next ones wait for each
	// other, and good news waits for more; the first pool of a node, too, for answers
	// about its devices.
	siblings = time.Second
	// toldFor is how long bad news is none any more after it was over. What comes again
	// and again shares the budget with what gets better.
	toldFor = time.Minute
	// writesBurst and writesEvery bound what a flapping GPU can make us write.
	writesBurst = 4
	writesEvery = 10 * time.Second
	// repairDelay is how soon a slice that somebody else has changed is put right.
	repairDelay = time.Second
	// patience is how long a write may be under way before nobody relies on it.
	patience = 10 * time.Second
	// decision is how long a start may take until it is known whether devices are
	// fenced; then they count as not.
	decision = settling + patience
	// retryTaints is how often taints are tried again on an API server that keeps none.
	retryTaints = 10 * time.Minute
	// lookAgain is how often it is tried whether containers can be given the devices
	// that wait for it.
	lookAgain = 5 * time.Second
	// breath is the least time between two renderings: a storm of events is one of
	// snapshots too, and a large node takes milliseconds to render.
	breath = 10 * time.Millisecond
	idle   = time.Hour
)

// writer brings the slices to what is desired, round by round. Its fields are those
// of one goroutine.
type writer struct {
	*Publisher
	controller *resourceslice.Controller
	budget     *budget.Bucket

	began    time.Time
	rendered time.Time       // when the devices last were
	known    map[string]bool // devices that were published once: they stay
	devices  int
	waiting  int
	missing  string    // why the first of those waits
	answers  time.Time // until when it is worth waiting for what is asked of them

	last     []resourceslice.Slice // what the controller was last given; nil: nothing yet
	given    bool                  // it was given something
	badNews  time.Time             // when it was last given bad news
	told     map[news]time.Time    // when the bad news that was given last stood
	goodNews time.Time             // since when there is something to give; zero: there is nothing
	behind   time.Time             // since when the API server does not say it; zero: it does
	tried    time.Time             // when taints were last tried
}

func newWriter(ctx context.Context, p *Publisher) (*writer, error) {
	now := time.Now()
	w := &writer{Publisher: p, budget: budget.New(writesBurst, writesEvery, now), began: now, known: map[string]bool{}, told: map[news]time.Time{}}
	var err error
	delay := repairDelay
	w.controller, err = resourceslice.StartController(ctx, resourceslice.Options{
		DriverName: pool.DriverName, KubeClient: p.o.Client,
		Owner:     &resourceslice.Owner{APIVersion: "v1", Kind: "Node", Name: p.o.Node},
		SyncDelay: &delay, ErrorHandler: p.failed,
		Queue: p.queue(),
	})
	if err != nil {
		return nil, fmt.Errorf("start the ResourceSlice controller: %w", err)
	}
	return w, nil
}

// round gives the controller what is due now, and says when to look again.
func (w *writer) round() time.Time {
	now := time.Now()
	w.mu.Lock()
	s, stored, server := w.snapshot, w.stored, w.server
	w.mu.Unlock()
	switch {
	case s == nil || stored == nil || server == nil:
		return now.Add(idle)
	case !w.given && !w.o.Forced && !w.knowsPlugin():
		return now.Add(idle)
	case !w.given && unanswered(s) && now.Before(w.began.Add(settling)):
		return w.began.Add(settling)
	}
	if again := w.rendered.Add(breath); again.After(now) {
		return again
	}
	w.rendered = now
	ours := own(stored)
	if !w.given {
		w.remember(ours)
	}
	rival := w.rival(stored)
	if rival != "" && !w.o.Forced {
		return w.withhold(rival, now)
	}
	devices, next := w.ready(pool.Devices(s, server.limits), now)
	if !w.given && len(ours) == 0 && w.answers.After(now) {
		return earliest(w.answers, next)
	}
	want := pool.Slices(devices)
	if due := w.permitted(ours, want, now); due.After(now) {
		return earliest(due, next, w.check(s, ours, now))
	}
	w.give(want, now)
	return earliest(next, w.check(s, ours, now))
}

func (p *Publisher) knowsPlugin() bool {
	_, known := p.o.PluginGPUs()
	return known
}

// unanswered reports whether a GPU has not been asked yet: it will have another
// status in a moment.
func unanswered(s *detector.Snapshot) bool {
	if !s.Ready() {
		return true
	}
	for i := range s.GPUs {
		if s.GPUs[i].Status == detector.Unknown && len(s.GPUs[i].Conditions) == 0 && !s.GPUs[i].Missing {
			return s.Pause == nil && s.Driver.Missing == ""
		}
	}
	return false
}

// remember takes the devices that the daemon before has published.
func (w *writer) remember(ours []*resourceapi.ResourceSlice) {
	for _, s := range ours {
		for _, d := range s.Spec.Devices {
			w.known[d.Name] = true
		}
	}
}

// ready leaves out the devices that no container could be given yet. One that was
// published stays: it may be lost, and then its taint must be seen.
func (w *writer) ready(devices []pool.Device, now time.Time) (ready []pool.Device, next time.Time) {
	before, asked := w.missing, map[string]bool{}
	next, w.waiting, w.missing, w.answers = now.Add(idle), 0, "", time.Time{}
	for _, d := range devices {
		if w.known[d.Name] {
			ready = append(ready, d)
			continue
		}
		l := w.readiness.of(d, now)
		if l.ready() {
			w.known[d.Name] = true
			ready = append(ready, d)
			continue
		}
		asked[d.Name] = true
		if missing := l.missing(d.Name, now); missing != "" {
			w.missing = cmp.Or(w.missing, missing)
			w.waiting++
		}
		if until := l.asked.Add(siblings); !l.answered && until.After(w.answers) {
			w.answers = until
		}
		if again := l.asked.Add(lookAgain); again.After(now) { // else its answer wakes us
			next = earliest(next, again)
		}
	}
	w.readiness.keep(asked)
	w.devices = len(ready)
	if w.missing != "" && w.missing != before {
		w.o.Log.Info("devices are not published yet", zap.Int("devices", w.waiting), zap.String("cause", w.missing))
	}
	return ready, next
}

// withhold takes back what was published.
func (w *writer) withhold(rival string, now time.Time) time.Time {
	w.enter(Withheld, rival)
	w.devices, w.waiting, w.missing = 0, 0, ""
	if w.last != nil || !w.given {
		w.controller.Update(&resourceslice.DriverResources{})
		w.last, w.given = nil, true
	}
	w.behind = time.Time{}
	return now.Add(lookAgain)
}

// permitted is when the controller may be given something new: bad news at once,
// siblings together, all the rest when the budget has room. Far in the future: there
// is nothing new.
func (w *writer) permitted(ours []*resourceapi.ResourceSlice, want []resourceslice.Slice, now time.Time) time.Time {
	if w.given && w.last != nil && equal(w.last, want) {
		w.goodNews = time.Time{}
		if w.dropping() && tainted(want) {
			if again := w.tried.Add(retryTaints); again.After(now) {
				return again
			}
			return now
		}
		return now.Add(idle)
	}
	before := w.last
	if !w.given {
		before = sliceOf(ours)
	}
	if !w.given && len(before) == 0 || w.worse(before, want, now) {
		if together := w.badNews.Add(siblings); together.After(now) {
			return together
		}
		w.badNews = now
		return now
	}
	if !w.given {
		return now // the same as is stored, or better
	}
	if w.goodNews.IsZero() {
		w.goodNews = now
	}
	ready := w.budget.Ready(now)
	if together := w.goodNews.Add(siblings); together.After(ready) {
		return together
	}
	return ready
}

// worse reports whether there is bad news that was none within the last minute.
func (w *writer) worse(before, want []resourceslice.Slice, now time.Time) bool {
	for f, effect := range worse(before, want) {
		if last, again := w.told[news{f, effect}]; !again || now.Sub(last) > toldFor {
			return true
		}
	}
	return false
}

// give hands the slices to the controller.
func (w *writer) give(want []resourceslice.Slice, now time.Time) {
	for _, stood := range [][]resourceslice.Slice{w.last, want} {
		for f, effect := range fences(stood) {
			w.told[news{f, effect}] = now
		}
	}
	if w.given && w.last != nil {
		w.budget.Take(now)
	}
	if !w.dropping() {
		w.enter(Taints, "")
	}
	w.controller.Update(&resourceslice.DriverResources{Pools: map[string]resourceslice.Pool{w.o.Node: {Slices: want}}})
	w.last, w.given, w.goodNews, w.tried = want, true, time.Time{}, now
}

// check compares what is stored with what was given, and says when to look again.
func (w *writer) check(s *detector.Snapshot, ours []*resourceapi.ResourceSlice, now time.Time) time.Time {
	if !w.given {
		return now.Add(idle)
	}
	dropping := w.dropping()
	if dropping && tainted(w.last) && says(ours, w.last, true) {
		w.enter(Taints, "") // the API server keeps them by now
		dropping = false
	}
	if says(ours, w.last, !dropping) {
		w.behind = time.Time{}
		w.mu.Lock()
		defer w.mu.Unlock()
		// Something newer may wait for the budget; then this is not the newest.
		if w.goodNews.IsZero() {
			w.seq, w.at, w.err = s.Seq, now, nil
		}
		return now.Add(idle)
	}
	if w.behind.IsZero() {
		w.behind = now
	}
	if late := w.behind.Add(patience); late.After(now) {
		return late
	}
	return now.Add(idle)
}

// stands reports whether the API server has what it was given, or will have it in a
// moment. p.mu is held.
func (w *writer) stands() bool {
	return w.given && w.last != nil && len(own(w.stored)) > 0 && w.rival(w.stored) == "" &&
		(w.behind.IsZero() || time.Since(w.behind) < patience)
}

// hopes reports whether what it was given is under way, and nobody else is in its way.
// p.mu is held.
func (w *writer) hopes() bool {
	return w.given && w.last != nil && w.rival(w.stored) == "" && !w.behind.IsZero() && time.Since(w.behind) < patience
}

func (p *Publisher) dropping() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mode == Attr
}

// failed is told by the controller what went wrong. It tries again by itself.
func (p *Publisher) failed(_ context.Context, err error, msg string) {
	dropped, isDropped := errors.AsType[*resourceslice.DroppedFieldsError](err)
	if isDropped {
		p.enter(Attr, fmt.Sprintf("the API server drops fields of our slices: %v", dropped.DisabledFeatures()))
		p.poke()
		return
	}
	if apierrors.IsInvalid(err) { // an older one may have taken its place
		select {
		case p.ask <- struct{}{}:
		default:
		}
	}
	p.mu.Lock()
	told := p.err != nil && apierrors.ReasonForError(p.err) == apierrors.ReasonForError(err)
	p.err = fmt.Errorf("%s: %w", msg, err)
	p.mu.Unlock()
	if !told {
		p.o.Log.Warn("writing ResourceSlices is delayed; it is tried again", zap.Error(err), zap.String("advice", advice(err)))
	}
	p.poke()
}

func advice(err error) string {
	switch {
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return "the service account lacks the right, or an admission policy refuses: compare with deploy/rbac"
	case apierrors.IsInvalid(err):
		return "the API server says which field it does not take"
	case apierrors.IsNotFound(err):
		return "dynamic resource allocation takes Kubernetes 1.34 or later, with the API group resource.k8s.io"
	default:
		return "the API server gave no answer, or says why"
	}
}

func earliest(first time.Time, more ...time.Time) time.Time {
	for _, t := range more {
		if t.Before(first) {
			first = t
		}
	}
	return first
}
