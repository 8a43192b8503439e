package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"strings"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"gpuvet.dev/detector"
	"gpuvet.dev/internal/budget"
	"gpuvet.dev/internal/faultpoint"
)

// History is the trail, as far as Events need it.
type History struct {
	// Read gives the records behind a position, in order, up to the newest. If
	// the position lies behind the end, for the trail was lost, it begins anew.
	// Errors come among the records, and the sequence may go on after them.
	Read func(after uint64) iter.Seq2[Record, error]
	// Cursor is the position up to which Events are told; zero if none was.
	Cursor func() uint64
	// SetCursor moves it. It need not be saved at once: what is told again
	// after a crash has the same name.
	SetCursor func(uint64)
}

// Record is one record of the trail: its position, and what it changed, which
// may be nothing.
type Record struct {
	Position    uint64
	Transitions []detector.Transition
}

const (
	// reporter is who says it.
	reporter = "gpuvet.dev"
	// eventsNamespace is where events about nodes live: a node has no namespace.
	eventsNamespace = metav1.NamespaceDefault
	// memory is how long past news is told: what is older and over concerns
	// nobody, and the API server forgets Events after an hour itself. It keeps a
	// fresh install from telling the whole kernel log.
	memory = time.Hour
	// eventsBurst and eventsEvery bound what a flapping GPU can make us tell.
	eventsBurst = 25
	eventsEvery = 10 * time.Second
	// trailLag is how long after a snapshot its record may come.
	trailLag = time.Second
	// trailPause is how often the trail is read if nothing calls for it.
	trailPause = 30 * time.Second
)

// teller tells people what happened, through Kubernetes Events. It waits for
// nobody but the API server.
type teller struct {
	*Output
	wake  chan struct{}
	extra chan *corev1.Event

	// What follows is run's own.
	waiting  []*corev1.Event
	budget   *budget.Bucket
	tenants  *budget.Bucket // of Events about pods
	trouble  complaint
	retryAt  time.Time
	failures int
	ahead    uint64    // the record that was newer than the snapshot
	since    time.Time // when it was met
}

func newTeller(o *Output) *teller {
	return &teller{
		Output: o, wake: make(chan struct{}, 1), extra: make(chan *corev1.Event, 4),
		trouble: complaint{log: o.options.Log, about: "telling events"},
	}
}

// look says that there may be something to tell.
func (t *teller) look() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// tell takes an event that is in no trail. It is dropped if too many wait: the
// log has it.
func (t *teller) tell(e *corev1.Event) {
	select {
	case t.extra <- e:
	default:
	}
}

func (t *teller) run(ctx context.Context) {
	t.budget = budget.New(eventsBurst, eventsEvery, time.Now())
	t.tenants = budget.New(podEventsBurst, podEventsEvery, time.Now())
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		pause := trailPause
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
			pause = trailLag
		case <-timer.C:
		case e := <-t.extra:
			t.waiting = append(t.waiting, e)
		}
		timer.Reset(max(min(time.Until(t.round(ctx)), pause), 0))
	}
}

// round tells what there is to tell, and says when to go on.
func (t *teller) round(ctx context.Context) time.Time {
	now := time.Now()
	if now.Before(t.retryAt) {
		return t.retryAt
	}
	next, err := t.drain(ctx)
	if err != nil && ctx.Err() == nil {
		t.failures++
		t.trouble.say(err)
		t.retryAt = now.Add(max(budget.Backoff(t.failures), budget.FirstRetry/2))
		return t.retryAt
	}
	t.failures = 0
	t.trouble.end()
	return next
}

// drain tells all that waits, as far as the budget goes.
func (t *teller) drain(ctx context.Context) (time.Time, error) {
	for len(t.waiting) > 0 {
		if ready, err := t.publish(ctx, t.waiting[0]); err != nil || !ready.IsZero() {
			return ready, err
		}
		t.waiting = t.waiting[1:]
	}
	idle := time.Now().Add(trailPause)
	if t.options.History.Read == nil {
		return idle, nil
	}
	for record, err := range t.options.History.Read(t.options.History.Cursor()) {
		if err != nil {
			t.options.Log.Warn("trail cannot be read in full: some events are not told", zap.Error(err))
			continue
		}
		if t.early(record) {
			return time.Now().Add(trailLag / 10), nil
		}
		for _, change := range record.Transitions {
			if t.tells(change) {
				if ready, err := t.publish(ctx, t.eventOf(change)); err != nil || !ready.IsZero() {
					return ready, err
				}
			}
			if err := t.tellHolders(ctx, change); err != nil {
				return time.Time{}, err
			}
		}
		t.options.History.SetCursor(record.Position)
	}
	return idle, nil
}

// early reports whether the snapshot that would say what still stands has not
// come yet. It is not waited for long: a trail that outlived its state has
// numbers that no snapshot reaches.
func (t *teller) early(r Record) bool {
	if len(r.Transitions) == 0 {
		return false
	}
	if s, _ := t.newest(); s != nil && s.Seq >= r.Transitions[len(r.Transitions)-1].Seq {
		return false
	}
	if t.ahead != r.Position {
		t.ahead, t.since = r.Position, time.Now()
	}
	return time.Since(t.since) < trailLag
}

// publish creates the event. A time means that the budget has room only then.
func (t *teller) publish(ctx context.Context, e *corev1.Event) (time.Time, error) {
	now := time.Now()
	if ready := t.budget.Ready(now); ready.After(now) {
		return ready, nil
	}
	if t.options.DryRun {
		t.budget.Take(now)
		t.options.Log.Info("would create event", zap.String("event", e.Name), zap.String("reason", e.Reason), zap.String("message", e.Message))
		return time.Time{}, nil
	}
	err := t.create(ctx, t.options.Events, e)
	switch {
	case err == nil:
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsRequestEntityTooLargeError(err):
		// It will never be taken, and must not keep the next ones waiting.
		t.options.Log.Error("event refused", zap.String("event", e.Name), zap.String("reason", e.Reason), zap.Error(err))
	default:
		return time.Time{}, err
	}
	t.budget.Take(now)
	faultpoint.Hit("event-created")
	return time.Time{}, nil
}

// tells says whether a change is news: a fault that fences has begun or ended,
// lately, or it began whenever and still stands; or a pause has, lately.
func (t *teller) tells(c detector.Transition) bool {
	switch {
	case c.Status == detector.Noted:
		return (c.Condition == detector.NotedPaused || c.Condition == detector.NotedResumed) && time.Since(c.Time) <= memory
	case !c.Effect.Fences() || c.Class == detector.Application:
		return false
	case c.Status == detector.Raised:
		return time.Since(c.Time) <= memory || t.stands(c)
	case c.Status == detector.Cleared:
		return time.Since(c.Time) <= memory
	default:
		return false
	}
}

func (t *teller) stands(c detector.Transition) bool {
	s, _ := t.newest()
	if s == nil {
		return false
	}
	conditions := s.Node
	if g, ok := s.GPU(c.PCI); ok {
		conditions = g.Conditions
	}
	for _, standing := range conditions {
		if standing.Incident == c.Incident && standing.Reason == c.Condition {
			return true
		}
	}
	return false
}

func (t *teller) eventOf(c detector.Transition) *corev1.Event {
	if c.Status == detector.Noted {
		return pauseEvent(t.options.NodeName, c)
	}
	who := t.gpuOf(c)
	kind, reason := corev1.EventTypeWarning, string(c.Condition)
	message := fmt.Sprintf("%s gets no new work: %s; %s", who, c.Cause, c.Action)
	if c.Status == detector.Cleared {
		kind, reason = corev1.EventTypeNormal, string(c.Condition)+"Cleared"
		message = fmt.Sprintf("%s: %s is over: %s", who, c.Condition, c.Cause)
	}
	// A fault that gets harder, or was ignored for a while, is raised again under the
	// same incident.
	identity := []string{c.Incident, c.PCI, string(c.Condition), string(c.Status), string(c.Effect), c.Cause}
	return event(t.options.NodeName, identity, kind, reason, message, c.Time)
}

// gpuOf is the GPU that a change is about, as people find it.
func (t *teller) gpuOf(c detector.Transition) string {
	if c.PCI == "" {
		return "node"
	}
	gpu := &detector.GPUView{PCI: c.PCI, UUID: c.UUID}
	if s, _ := t.newest(); s != nil {
		if known, ok := s.GPU(c.PCI); ok && known.UUID == c.UUID {
			gpu = known
		}
	}
	return name(gpu)
}

func pauseEvent(node string, c detector.Transition) *corev1.Event {
	message := "GPUs are not monitored: " + c.Cause
	if c.Condition == detector.NotedResumed {
		message = "GPUs are monitored again: " + c.Cause
	}
	return event(node, []string{string(c.Condition), c.Time.UTC().Format(time.RFC3339Nano)}, corev1.EventTypeNormal, string(c.Condition), message, c.Time)
}

func refusedEvent(node, by, cause string, now time.Time) *corev1.Event {
	words := refusals[by]
	return event(node, []string{words.reason, cause, now.UTC().Format(time.RFC3339Nano)}, corev1.EventTypeWarning, words.reason,
		words.message+cause, now)
}

func foreignEvent(node string, entry *corev1.Taint, now time.Time) *corev1.Event {
	return event(node, []string{"ForeignTaint", foreignText(entry)}, corev1.EventTypeWarning, "ForeignTaint",
		fmt.Sprintf("this node should be tainted, but %s is there and was not written by gpuvet; it is left alone", foreignText(entry)), now)
}

// event names the Node as the kubelet does, with its name for a UID: kubectl
// describe looks for both.
func event(node string, identity []string, kind, reason, message string, at time.Time) *corev1.Event {
	sum := sha256.Sum256([]byte(strings.Join(append(identity, node), "\x00")))
	// The API allows 253 bytes.
	prefix := strings.TrimRight(node[:min(len(node), 230)], ".-")
	return &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: eventsNamespace, Name: prefix + "." + hex.EncodeToString(sum[:8])},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: node, UID: types.UID(node)},
		Type:           kind, Reason: reason, Message: bounded(message), Count: 1,
		FirstTimestamp: metav1.NewTime(at), LastTimestamp: metav1.NewTime(at),
		Source:              corev1.EventSource{Component: reporter, Host: node},
		ReportingController: reporter, ReportingInstance: node[:min(len(node), 128)],
	}
}
