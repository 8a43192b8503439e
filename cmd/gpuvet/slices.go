package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	kubeversion "k8s.io/apimachinery/pkg/util/version"
	"sigs.k8s.io/yaml"

	"gpuvet.dev/detector"
	"gpuvet.dev/dra/pool"
	"gpuvet.dev/exporter"
	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
)

// sliceOptions are the flags of `gpuvet slices`.
type sliceOptions struct {
	socket, fakeNVML, nodeName string
	after                      time.Duration
	kubernetes, format         string
}

func slicesCommand() *cobra.Command {
	var o sliceOptions
	cmd := &cobra.Command{
		Use:   "slices",
		Short: "Show what Kubernetes would hear of the GPUs of this node",
		Long: `Show the ResourceSlices that this node would publish: each GPU or MIG device with
its attributes, its capacity and the taints of its faults. No cluster is asked and
nothing is published, so that selectors of a claim can be tried and reviewed.

The daemon of this node says what there is. With --fake-nvml no daemon is needed: the
scenario is played in real time, and what it has come to after a while is shown.

The API server completes the names of slices, and does not know every taint in every
version: --kubernetes says which one it is.`,
		Example: `  gpuvet slices
  gpuvet slices -o json | jq '.items[].spec.devices[] | {name, taints}'
  gpuvet slices --fake-nvml testdata/scenarios/8xh100-lost.yaml --after 8s
  gpuvet slices --kubernetes 1.34`,
		Args: arguments(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("-o", o.format, "yaml", "json"); err != nil {
				return err
			}
			if o.fakeNVML != "" && cmd.Flags().Changed("socket") {
				return badInput("--fake-nvml %s and --socket %s: expected one of them", o.fakeNVML, o.socket)
			}
			limits, err := limitsOf(o.kubernetes)
			if err != nil {
				return err
			}
			node, err := o.node()
			if err != nil {
				return err
			}
			s, err := o.snapshot(cmd.Context())
			if err != nil {
				return err
			}
			objects := resourceSlices(pool.Devices(s, limits), node)
			if len(objects) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "gpuvet slices: no devices:", nothing(s))
			}
			return printSlices(cmd.OutOrStdout(), objects, o.format)
		},
	}
	f := cmd.Flags()
	socketFlag(cmd, &o.socket)
	f.StringVar(&o.fakeNVML, "fake-nvml", "", "play this scenario instead of asking the daemon")
	f.DurationVar(&o.after, "after", 0, "with --fake-nvml: play it for so long before looking")
	f.StringVar(&o.nodeName, "node-name", os.Getenv("NODE_NAME"), "name of this node in the cluster (default $NODE_NAME, then the host name)")
	f.StringVar(&o.kubernetes, "kubernetes", "1.37", "version of the API server, from 1.34")
	f.StringVarP(&o.format, "output", "o", "yaml", "yaml or json")
	return cmd
}

// serverVersion is how API servers and people write one: 1.34, v1.36.2+k3s1.
var serverVersion = regexp.MustCompile(`^v?\d+\.\d+(\.\d+)?([-+].*)?$`)

func limitsOf(kubernetes string) (pool.Limits, error) {
	// The parser takes whatever follows the numbers.
	v, err := kubeversion.ParseGeneric(kubernetes)
	if err != nil || !serverVersion.MatchString(kubernetes) || v.LessThan(kubeversion.MajorMinor(1, 34)) {
		return pool.Limits{}, badInput("--kubernetes %q: expected 1.34 or later", kubernetes)
	}
	return pool.LimitsOf(int(v.Major()), int(v.Minor())), nil
}

func (o *sliceOptions) node() (string, error) {
	name := o.nodeName
	if name == "" {
		var err error
		if name, err = os.Hostname(); err != nil {
			return "", fmt.Errorf("--node-name: %w", err)
		}
	}
	if faults := validation.IsDNS1123Subdomain(name); len(faults) > 0 {
		return "", badInput("--node-name %q: expected the name of a node, such as gpu-node-1.example.com", name)
	}
	return name, nil
}

// snapshot is what is known of the GPUs, of the daemon or of a scenario.
func (o *sliceOptions) snapshot(ctx context.Context) (*detector.Snapshot, error) {
	if o.fakeNVML == "" {
		if o.after != 0 {
			return nil, badInput("--after %s: expected --fake-nvml with it", o.after)
		}
		answer, err := ask(ctx, o.socket, http.MethodGet, "/api/v1/snapshot", nil)
		if err != nil {
			return nil, err
		}
		var report exporter.Report
		if err := decode(answer, &report); err != nil {
			return nil, err
		}
		return cmp.Or(report.Snapshot, &detector.Snapshot{}), nil
	}
	if o.after < 0 {
		return nil, badInput("--after %s: expected a duration such as 30s", o.after)
	}
	script, err := loadScript(runOptions{fakeNVML: o.fakeNVML})
	if err != nil {
		return nil, err
	}
	return watched(ctx, script, o.after)
}

// watched plays a scenario under the eyes of a detector that keeps nothing, until every
// GPU was looked at once and the time is over.
func watched(ctx context.Context, script *fake.Driver, after time.Duration) (*detector.Snapshot, error) {
	const boot = "scenario"
	d := detector.New(detector.Config{Policy: detector.DefaultPolicy(), Boot: boot, Uptime: time.Minute})
	facts := detector.NewFacts(nvml.DefaultFreshness, d.Emit)
	sampler := nvml.NewSampler(script, nvml.SamplerOptions{})
	first := firstLook{over: make(chan struct{})}

	ending, end := context.WithCancel(ctx)
	defer end()
	sources, running := errgroup.WithContext(ending)
	elapsed := time.After(after)
	sources.Go(func() error { return script.Run(running) })
	sources.Go(func() error { return d.Run(running) })
	sources.Go(func() error {
		return detector.NewKernelLog().Lines(running, boot, script.KernelLines, d.Emit)
	})
	sources.Go(func() error { return detector.DriverEvents(running, script, d.Submit, sampler.Refresh) })
	sources.Go(func() error {
		return sampler.Run(running, func(o nvml.Observation) {
			facts.Observe(o)
			first.observe(o)
		})
	})
	select {
	case <-running.Done():
	case <-first.over:
	}
	select {
	case <-running.Done():
	case <-elapsed:
	}
	s := d.Snapshot()
	end()
	if err := sources.Wait(); err != nil {
		return nil, fmt.Errorf("play %w", err)
	}
	return s, ctx.Err()
}

// firstLook is over when each GPU has answered or failed once, or there is none to ask.
type firstLook struct {
	over   chan struct{}
	listed bool            // there was an inventory
	open   map[string]bool // by PCI address: who was not heard of yet
}

// observe takes what the sampler tells, one at a time.
func (l *firstLook) observe(o nvml.Observation) {
	switch {
	case l.listed && len(l.open) == 0:
		return
	case !l.listed && o.PCI == "":
		l.listed, l.open = true, map[string]bool{}
		if o.Inventory != nil {
			for _, g := range o.Inventory.GPUs {
				l.open[g.PCI] = true
			}
		}
	default:
		delete(l.open, o.PCI)
	}
	if l.listed && len(l.open) == 0 {
		close(l.over)
	}
}

// nothing says why there is no device.
func nothing(s *detector.Snapshot) string {
	switch {
	case !s.Ready():
		return "the GPUs were not looked for yet"
	case s.Driver.Missing != "":
		return s.Driver.Missing
	case len(s.GPUs) == 0:
		return "no GPUs on this node"
	default:
		return "no GPU is described yet, or those that are have no MIG device"
	}
}

// resourceSlices are the objects that the node would create. The API server gives the
// rest of their names.
func resourceSlices(devices []pool.Device, node string) []resourceapi.ResourceSlice {
	groups := pool.Slices(devices)
	objects := make([]resourceapi.ResourceSlice, 0, len(groups))
	for i, group := range groups {
		objects = append(objects, resourceapi.ResourceSlice{
			TypeMeta:   metav1.TypeMeta{APIVersion: resourceapi.SchemeGroupVersion.String(), Kind: "ResourceSlice"},
			ObjectMeta: metav1.ObjectMeta{GenerateName: fmt.Sprintf("%05x-%s-%s-", i, pool.DriverName, node)},
			Spec: resourceapi.ResourceSliceSpec{
				Driver:   pool.DriverName,
				Pool:     resourceapi.ResourcePool{Name: node, Generation: 1, ResourceSliceCount: int64(len(groups))},
				NodeName: &node,
				Devices:  group.Devices,
			},
		})
	}
	return objects
}

// printSlices writes YAML documents, or one list as kubectl does.
func printSlices(w io.Writer, objects []resourceapi.ResourceSlice, format string) error {
	if format == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(resourceapi.ResourceSliceList{
			TypeMeta: metav1.TypeMeta{APIVersion: resourceapi.SchemeGroupVersion.String(), Kind: "ResourceSliceList"},
			Items:    objects,
		})
	}
	for i := range objects {
		text, err := yaml.Marshal(objects[i])
		if err != nil {
			return fmt.Errorf("write slice %d: %w", i, err)
		}
		if i > 0 {
			text = append([]byte("---\n"), text...)
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	return nil
}
