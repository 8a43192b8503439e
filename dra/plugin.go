package dra

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	metadatav1alpha1 "k8s.io/dynamic-resource-allocation/api/metadata/v1alpha1"
	metadatav1beta1 "k8s.io/dynamic-resource-allocation/api/metadata/v1beta1"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/klog/v2"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"gpuvet.dev/detector"
	"gpuvet.dev/dra/cdi"
	"gpuvet.dev/dra/pool"
)

// Detector is the part of [detector.Detector] that is used here.
type Detector interface {
	Submit(ctx context.Context, e detector.Event) (*detector.Snapshot, error)
	Snapshot() *detector.Snapshot
	Watch(ctx context.Context) iter.Seq[*detector.Snapshot]
	Alive() error
}

// Specs is the part of [cdi.Specs] that is used here.
type Specs interface {
	Write(claim string, devices []cdi.Device, note string) (map[string][]string, error)
	Note(claim string) (string, error)
	Remove(claim string) error
	List() ([]string, error)
}

// The operations that [Options.Begin] hears of, each on one claim.
const (
	OperationPrepare   = "prepare"
	OperationUnprepare = "unprepare"
	OperationSweep     = "sweep" // giving back a claim that is gone
)

// Options say what a Plugin works with. What is not said to be optional is required.
type Options struct {
	Node string // its name; the pool's too
	// Kube reads claims and namespaces.
	Kube       kubernetes.Interface
	KubeletDir string // /var/lib/kubelet; the same path in and outside of a container
	Host       string // where the node's root is seen; by default /
	CDIDir     string // where the runtime looks for specs: /var/run/cdi
	Detector   Detector
	Specs      Specs
	// Look has NVML look at the GPU at a PCI address now, and returns by the end of
	// ctx. Without an error it answered, and what it said is in the snapshot.
	Look func(ctx context.Context, pci string) error
	// Limits are those of the API server that devices are published to.
	Limits func() pool.Limits
	// Withheld is who else gives out the GPUs of this node, empty if nobody does: what
	// was allocated before he came is then not prepared any more; optional.
	Withheld func() string
	// TenantLabel is the label of a namespace that names the tenant; optional, and
	// empty where a namespace is a tenant.
	TenantLabel func() string
	Config      Config
	Log         *zap.Logger // optional
	// Begin is told of every operation that begins, and what it returns of its end:
	// for counts, durations and what is under way; optional. See [KindOf].
	Begin func(operation string) (end func(error))
}

// Plugin is the kubelet plugin of the driver.
type Plugin struct {
	o        Options
	locks    locks
	tenants  tenants
	refusals refusals
	soon     chan struct{} // a sweep is wanted
	// unrestored are the claims whose CDI spec could not be restored, and why, by UID.
	// They are those of the goroutine that restores.
	unrestored map[string]string

	mu  sync.Mutex // guards err
	err error      // why the kubelet does not know us; nil: it does
}

// New makes a Plugin. Nothing is opened before Run.
func New(o Options) (*Plugin, error) {
	for _, given := range []struct {
		name string
		ok   bool
	}{
		{"Node", o.Node != ""},
		{"Kube", o.Kube != nil},
		{"KubeletDir", o.KubeletDir != ""},
		{"CDIDir", o.CDIDir != ""},
		{"Detector", o.Detector != nil},
		{"Specs", o.Specs != nil},
		{"Look", o.Look != nil},
		{"Limits", o.Limits != nil},
	} {
		if !given.ok {
			return nil, fmt.Errorf("make the kubelet plugin: no %s", given.name)
		}
	}
	if err := o.Config.Validate(); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Begin == nil {
		o.Begin = func(string) func(error) { return func(error) {} }
	}
	o.Host = cmp.Or(o.Host, "/")
	if o.Withheld == nil {
		o.Withheld = func() string { return "" }
	}
	if o.TenantLabel == nil {
		o.TenantLabel = func() string { return "" }
	}
	return &Plugin{
		o: o, soon: make(chan struct{}, 1), unrestored: map[string]string{}, err: errNotYet,
		tenants: tenants{namespaces: o.Kube.CoreV1().Namespaces(), label: o.TenantLabel, log: o.Log},
	}, nil
}

var (
	errNotYet   = errors.New("the kubelet has not registered the driver yet")
	errStopping = errors.New("the driver is stopping")
)

const (
	// serveAgain is the pause before registering is tried again.
	serveAgain = 2 * time.Second
	// socketsLooked is how often it is seen to that the sockets are still there.
	socketsLooked = 5 * time.Second
)

// Run serves the kubelet until ctx ends, and has unregistered when it returns: the
// sockets are gone and no call is under way. Whatever keeps it from serving, a folder
// of the kubelet that is not there yet among them, is tried again; [Plugin.Err] tells.
func (p *Plugin) Run(ctx context.Context) error {
	p.restore(ctx)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { p.sweeps(ctx) })
	for {
		err := p.serve(ctx)
		if ctx.Err() != nil {
			p.note(errStopping)
			return nil
		}
		p.note(err)
		select {
		case <-ctx.Done():
		case <-time.After(serveAgain):
		}
	}
}

// Err is why the kubelet does not know the driver at present; nil if it does.
func (p *Plugin) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// note remembers how it stands with the kubelet, and logs what is new.
func (p *Plugin) note(err error) {
	p.mu.Lock()
	before := p.err
	p.err = err
	p.mu.Unlock()
	switch {
	case err == nil && before != nil:
		p.o.Log.Info("registered with the kubelet", zap.String("driver", pool.DriverName))
	case err != nil && !errors.Is(err, errStopping) && (before == nil || before.Error() != err.Error()):
		p.o.Log.Warn("not registered with the kubelet; no claim can be prepared", zap.Error(err))
	}
}

// session is one registration, from the first socket to the last call. It is what
// the kubelet calls.
type session struct {
	plugin *Plugin
	fail   context.CancelCauseFunc
	calls  calls
}

var _ kubeletplugin.DRAPlugin = (*session)(nil)

// serve registers and answers calls until ctx ends or something fails, and then
// unregisters.
func (p *Plugin) serve(ctx context.Context) error {
	registry := filepath.Join(p.o.KubeletDir, "plugins_registry")
	if _, err := os.Stat(registry); err != nil {
		return fmt.Errorf("look for the kubelet: %w", err)
	}
	data := filepath.Join(p.o.KubeletDir, "plugins", pool.DriverName)
	if err := os.MkdirAll(data, 0o750); err != nil {
		return fmt.Errorf("make the driver's folder: %w", err)
	}
	ctx, fail := context.WithCancelCause(klog.NewContext(ctx, zapr.NewLogger(p.o.Log.Named("kubeletplugin"))))
	defer fail(nil)
	s := &session{plugin: p, fail: fail}
	defer s.calls.close()
	plugin, err := kubeletplugin.Start(ctx, s,
		kubeletplugin.DriverName(pool.DriverName),
		kubeletplugin.NodeName(p.o.Node),
		kubeletplugin.KubeClient(p.o.Kube),
		kubeletplugin.RegistrarDirectoryPath(registry),
		kubeletplugin.PluginDataDirectoryPath(data),
		kubeletplugin.CDIDirectory(p.o.CDIDir),
		kubeletplugin.EnableDeviceMetadata(true, []schema.GroupVersion{metadatav1beta1.SchemeGroupVersion, metadatav1alpha1.SchemeGroupVersion}),
		kubeletplugin.Serialize(false),
		kubeletplugin.GRPCInterceptor(s.registered),
	)
	if err != nil {
		return fmt.Errorf("serve the kubelet: %w", err)
	}
	defer plugin.Stop()
	look := time.NewTicker(socketsLooked)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-look.C:
		}
		for _, socket := range []string{filepath.Join(registry, pool.DriverName+"-reg.sock"), filepath.Join(data, "dra.sock")} {
			if _, err := os.Stat(socket); err != nil {
				return fmt.Errorf("somebody removed a socket: %w", err)
			}
		}
	}
}

// registered learns what the kubelet makes of the registration.
func (s *session) registered(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if status, ok := request.(*registration.RegistrationStatus); ok {
		if status.PluginRegistered {
			s.plugin.note(nil)
		} else {
			s.plugin.note(fmt.Errorf("the kubelet refuses the driver: %s", status.Error))
		}
	}
	return handler(ctx, request)
}

// HandleError logs what happened in the background. What cannot go on so is begun
// anew.
func (s *session) HandleError(_ context.Context, err error, what string) {
	if errors.Is(err, kubeletplugin.ErrRecoverable) {
		s.plugin.o.Log.Warn(what, zap.Error(err))
		return
	}
	s.fail(fmt.Errorf("%s: %w", what, err))
}
