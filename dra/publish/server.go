package publish

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/dynamic-resource-allocation/client"

	"gpuvet.dev/dra/pool"
	"gpuvet.dev/internal/budget"
)

// server is what the API server is.
type server struct {
	version string
	limits  pool.Limits
}

// askVersions asks for the version of the API server, and again when it refuses what
// that version takes.
func (p *Publisher) askVersions(ctx context.Context) {
	for ctx.Err() == nil {
		p.askVersion(ctx)
		select {
		case <-ctx.Done():
		case <-p.ask:
		}
	}
}

// askVersion asks until there is an answer.
func (p *Publisher) askVersion(ctx context.Context) {
	for failures := 1; ctx.Err() == nil; failures++ {
		info, err := p.o.Client.Discovery().ServerVersion()
		if err == nil {
			known, err := serverOf(info)
			if err != nil {
				p.o.Log.Warn("version of the API server is not understood; the oldest is assumed", zap.Error(err))
			}
			p.mu.Lock()
			p.server = known
			p.mu.Unlock()
			p.poke()
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(budget.Backoff(failures)):
		}
	}
}

// serverOf reads a version. One that emulates an older one has the limits of that.
func serverOf(info *version.Info) (*server, error) {
	major, minor := info.Major, info.Minor
	text := info.GitVersion
	if info.EmulationMinor != "" && info.EmulationMinor != minor {
		major, minor = info.EmulationMajor, info.EmulationMinor
		text += ", as " + major + "." + minor
	}
	// Some clouds write 34+.
	a, err := strconv.Atoi(strings.TrimRight(major, "+"))
	b, errMinor := strconv.Atoi(strings.TrimRight(minor, "+"))
	if err != nil || errMinor != nil {
		return &server{version: text, limits: pool.LimitsOf(1, 34)}, fmt.Errorf("version %q.%q: expected two numbers", major, minor)
	}
	return &server{version: text, limits: pool.LimitsOf(a, b)}, nil
}

// watch keeps what the API server has of this node's slices, those of other drivers
// among them, until ctx ends.
func (p *Publisher) watch(ctx context.Context) {
	api := client.New(p.o.Client)
	slices := api.ResourceSlices()
	here := fields.OneTermEqualSelector(resourceapi.ResourceSliceSelectorNodeName, p.o.Node).String()
	list := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = here
			found, err := slices.List(ctx, o)
			if err != nil && ctx.Err() == nil {
				p.failed(ctx, err, "list the slices of this node")
			}
			return found, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = here
			w, err := slices.Watch(ctx, o)
			if err != nil && ctx.Err() == nil {
				p.failed(ctx, err, "watch the slices of this node")
			}
			return w, err
		},
	}, api)
	cache.NewReflectorWithOptions(list, &resourceapi.ResourceSlice{}, p.seen(), cache.ReflectorOptions{
		Name: "slices of this node",
		// That of the library goes up to a minute. Meanwhile nobody would know that
		// devices are fenced, and the node would be tainted for nothing.
		Backoff: &wait.Backoff{Duration: budget.FirstRetry, Factor: 2, Steps: 10, Cap: budget.LastRetry / 2, Jitter: 0.5},
	}).RunWithContext(ctx)
}

// seen takes what the watch tells.
func (p *Publisher) seen() cache.ReflectorStore { return &mirror{p} }

// mirror is the publisher as the store of its watch.
type mirror struct{ p *Publisher }

func (m *mirror) change(f func(map[string]*resourceapi.ResourceSlice)) error {
	m.p.mu.Lock()
	defer m.p.mu.Unlock()
	next := maps.Clone(m.p.stored) // rounds read the one before
	if next == nil {
		next = map[string]*resourceapi.ResourceSlice{}
	}
	f(next)
	m.p.stored = next
	m.p.poke()
	return nil
}

// Add implements [cache.ReflectorStore], as the methods below.
func (m *mirror) Add(o any) error { return m.Update(o) }

// Update takes one slice.
func (m *mirror) Update(o any) error {
	s, ok := o.(*resourceapi.ResourceSlice)
	if !ok {
		return fmt.Errorf("watch slices: met %T", o)
	}
	return m.change(func(all map[string]*resourceapi.ResourceSlice) { all[s.Name] = s })
}

// Delete forgets one slice.
func (m *mirror) Delete(o any) error {
	s, ok := o.(*resourceapi.ResourceSlice)
	if !ok {
		return fmt.Errorf("watch slices: met %T", o)
	}
	return m.change(func(all map[string]*resourceapi.ResourceSlice) { delete(all, s.Name) })
}

// Replace takes a whole list.
func (m *mirror) Replace(list []any, _ string) error {
	return m.change(func(all map[string]*resourceapi.ResourceSlice) {
		clear(all)
		for _, o := range list {
			if s, ok := o.(*resourceapi.ResourceSlice); ok {
				all[s.Name] = s
			}
		}
	})
}

// Resync does nothing: nobody is told of what did not change.
func (m *mirror) Resync() error { return nil }
