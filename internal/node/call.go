package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// callLimit ends a call that hangs. It is shorter than budget.LastRetry, so that a call
// that began just before the API server came back does not spend its ten seconds.
const callLimit = 8 * time.Second

// fieldManager is the name under which the API server notes our fields.
const fieldManager = "gpuvet"

// call makes one call to the API server, with its deadline.
func (o *Output) call(ctx context.Context, name string, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	began := time.Now()
	err := do(ctx)
	o.options.Observe(name, time.Since(began), err)
	if err == nil {
		return nil
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		o.options.Reconnect()
	}
	return fmt.Errorf("%s %s: %w", name, o.options.NodeName, err)
}

func (o *Output) get(ctx context.Context) error {
	return o.call(ctx, "get node", func(ctx context.Context) error {
		n, err := o.options.Nodes.Get(ctx, o.options.NodeName, metav1.GetOptions{})
		if err == nil {
			o.see(n)
		}
		return err
	})
}

// patch writes, and takes what the API server made of it as the newest version.
func (o *Output) patch(ctx context.Context, kind types.PatchType, body any, subresources ...string) error {
	data, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode a patch: %w", err)
	}
	name := "patch node"
	if len(subresources) > 0 {
		name += " " + subresources[0]
	}
	return o.call(ctx, name, func(ctx context.Context) error {
		n, err := o.options.Nodes.Patch(ctx, o.options.NodeName, kind, data, metav1.PatchOptions{FieldManager: fieldManager}, subresources...)
		if err == nil {
			o.see(n)
		}
		return err
	})
}

func (o *Output) create(ctx context.Context, events Events, e *corev1.Event) error {
	return o.call(ctx, "create event on node", func(ctx context.Context) error {
		_, err := events.Create(ctx, e, metav1.CreateOptions{FieldManager: fieldManager})
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	})
}

// unreachable reports whether the API server gave no answer of its own: then the
// next call would not fare better.
func unreachable(err error) bool {
	return err != nil && apierrors.ReasonForError(err) == metav1.StatusReasonUnknown && !errors.Is(err, errNotSaved)
}

var errNotSaved = errors.New("not saved")

// complaint logs a trouble once per cause, and its end.
type complaint struct {
	log   *zap.Logger
	about string
	cause string
}

func (c *complaint) say(err error) {
	cause := string(apierrors.ReasonForError(err))
	if errors.Is(err, errNotSaved) {
		cause = errNotSaved.Error()
	}
	if c.cause == "because "+cause {
		return
	}
	c.cause = "because " + cause
	c.log.Warn(c.about+" is delayed; it is tried again", zap.Error(err), zap.String("advice", advice(err)))
}

func (c *complaint) end() {
	if c.cause != "" {
		c.log.Info(c.about + " goes on")
	}
	c.cause = ""
}

func advice(err error) string {
	switch {
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return "the service account lacks the right, or an admission policy refuses: compare with deploy/rbac"
	case apierrors.IsNotFound(err):
		return "the node does not exist: check --node-name"
	case errors.Is(err, errNotSaved):
		return "nothing is written before it is on disk: check the state folder"
	case unreachable(err):
		return "the API server gave no answer"
	default:
		return "the API server says why"
	}
}
