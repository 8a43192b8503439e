package dra

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

const (
	// tenantFresh is how long the tenant of a namespace is remembered.
	tenantFresh = time.Minute
	// tenantLimit is how long a claim waits for it. Without one the namespace stands
	// for the tenant, as it does where no label is configured.
	tenantLimit = 500 * time.Millisecond
)

// tenants knows whose a namespace is: the value of the label by which administrators
// say so.
type tenants struct {
	namespaces corev1client.NamespaceInterface
	label      func() string // empty: a namespace is a tenant
	log        *zap.Logger

	mu    sync.Mutex // guards what follows
	known map[string]tenant
	by    string // the label that known was read by
}

type tenant struct {
	name string
	read time.Time
}

// of is the tenant of a namespace; empty if nothing but its name says that.
func (t *tenants) of(ctx context.Context, namespace string) string {
	label := t.label()
	if label == "" {
		return ""
	}
	if name, ok := t.recall(label, namespace); ok {
		return name
	}
	ctx, cancel := context.WithTimeout(ctx, tenantLimit)
	defer cancel()
	n, err := t.namespaces.Get(ctx, namespace, metav1.GetOptions{})
	if err != nil {
		t.log.Warn("tenant of a namespace is not known; the namespace stands for it", zap.String("namespace", namespace), zap.Error(err))
		return ""
	}
	name := n.Labels[label]
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known[namespace] = tenant{name, time.Now()}
	return name
}

// recall is what is remembered. What is too old, or of another label, is forgotten.
func (t *tenants) recall(label, namespace string) (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known == nil || t.by != label {
		t.known, t.by = map[string]tenant{}, label
	}
	for other, known := range t.known {
		if time.Since(known.read) > tenantFresh {
			delete(t.known, other)
		}
	}
	known, ok := t.known[namespace]
	return known.name, ok
}
