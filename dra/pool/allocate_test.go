package pool

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/structured"
	"sigs.k8s.io/yaml"

	"gpuvet.dev/detector"
)

// classes are the DeviceClasses that are shipped, and one of every device.
type classes map[string]*resourceapi.DeviceClass

func (c classes) Get(name string) (*resourceapi.DeviceClass, error) {
	if class, ok := c[name]; ok {
		return class, nil
	}
	return nil, fmt.Errorf("no class %s", name)
}

func (c classes) List() ([]*resourceapi.DeviceClass, error) {
	var all []*resourceapi.DeviceClass
	for _, class := range c {
		all = append(all, class)
	}
	return all, nil
}

// allClass selects every device of the driver, well or not.
const allClass = "all.example.com"

func shippedClasses(t *testing.T) classes {
	t.Helper()
	all := classes{allClass: {
		ObjectMeta: metav1.ObjectMeta{Name: allClass},
		Spec:       resourceapi.DeviceClassSpec{Selectors: selectors(`device.driver == 'gpu.gpuvet.dev'`)},
	}}
	for _, class := range shipped[resourceapi.DeviceClass](t, "classes.yaml") {
		all[class.Name] = class
	}
	return all
}

// shipped are the objects of one kind in a file of deploy/dra.
func shipped[T any](t *testing.T, name string) []*T {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../../deploy/dra", name))
	if err != nil {
		t.Fatal(err)
	}
	kind := reflect.TypeFor[T]().Name()
	var all []*T
	for document := range strings.SplitSeq(string(data), "\n---\n") {
		var meta metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(document), &meta); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if meta.Kind != kind {
			continue
		}
		object := new(T)
		if err := yaml.UnmarshalStrict([]byte(document), object); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, object)
	}
	if len(all) == 0 {
		t.Fatalf("%s has no %s", name, kind)
	}
	return all
}

// shippedClaim is the claim of a template in a file, with what the API server fills in.
func shippedClaim(t *testing.T, file, name string) resourceapi.DeviceClaim {
	t.Helper()
	for _, template := range shipped[resourceapi.ResourceClaimTemplate](t, filepath.Join("claims", file)) {
		if template.Name != name {
			continue
		}
		claim := template.Spec.Spec.Devices
		for _, r := range claim.Requests {
			if r.Exactly.AllocationMode == "" {
				r.Exactly.AllocationMode = resourceapi.DeviceAllocationModeExactCount
				r.Exactly.Count = max(r.Exactly.Count, 1)
			}
		}
		return claim
	}
	t.Fatalf("%s has no template %s", file, name)
	return resourceapi.DeviceClaim{}
}

func selectors(expressions ...string) []resourceapi.DeviceSelector {
	var all []resourceapi.DeviceSelector
	for _, e := range expressions {
		all = append(all, resourceapi.DeviceSelector{CEL: &resourceapi.CELDeviceSelector{Expression: e}})
	}
	return all
}

// request asks for devices of a class, all that there are if count is zero.
func request(class string, count int64, expressions ...string) resourceapi.DeviceRequest {
	exact := &resourceapi.ExactDeviceRequest{
		DeviceClassName: class, Selectors: selectors(expressions...),
		AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: count,
	}
	if count == 0 {
		exact.AllocationMode = resourceapi.DeviceAllocationModeAll
	}
	return resourceapi.DeviceRequest{Name: "gpu", Exactly: exact}
}

func tolerating(r resourceapi.DeviceRequest, tolerations ...resourceapi.DeviceToleration) resourceapi.DeviceRequest {
	r.Exactly.Tolerations = tolerations
	return r
}

func watching(r resourceapi.DeviceRequest) resourceapi.DeviceRequest {
	r.Exactly.AdminAccess = new(true)
	return r
}

func tolerate(key string) resourceapi.DeviceToleration {
	return resourceapi.DeviceToleration{Key: key, Operator: resourceapi.DeviceTolerationOpExists}
}

// cluster is a scheduler that has nothing but the slices of one node.
type cluster struct {
	classes classes
	devices []Device
	taken   []string // names of devices that other claims have
	taints  bool     // the feature gate DRADeviceTaints
}

// claim asks for devices that have an attribute in common, if one is named.
func claim(constraint string, requests ...resourceapi.DeviceRequest) resourceapi.DeviceClaim {
	asked := resourceapi.DeviceClaim{Requests: requests}
	for i := range requests {
		requests[i].Name = fmt.Sprintf("gpu-%d", i)
	}
	if constraint != "" {
		asked.Constraints = []resourceapi.DeviceConstraint{{MatchAttribute: new(resourceapi.FullyQualifiedName(constraint))}}
	}
	return asked
}

// allocate is what the scheduler gives to a claim: names of devices, in its order; nil
// if the claim has to wait.
func (c cluster) allocate(t *testing.T, asked resourceapi.DeviceClaim) []string {
	t.Helper()
	taken := sets.New[structured.DeviceID]()
	for _, name := range c.taken {
		taken.Insert(structured.MakeDeviceID(DriverName, "node-a", name))
	}
	features := structured.Features{AdminAccess: true, PrioritizedList: true, DeviceTaints: c.taints}
	allocator, err := structured.NewAllocator(t.Context(), features, structured.AllocatedState{AllocatedDevices: taken},
		c.classes, c.slices(), cel.NewCache(20, cel.Features{}))
	if err != nil {
		t.Fatal(err)
	}
	results, err := allocator.Allocate(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}}, []*resourceapi.ResourceClaim{{
		ObjectMeta: metav1.ObjectMeta{Name: "claim", Namespace: "team-a", UID: "1"},
		Spec:       resourceapi.ResourceClaimSpec{Devices: asked},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if results == nil {
		return nil
	}
	given := []string{}
	for _, r := range results[0].Devices.Results {
		given = append(given, r.Device)
	}
	return given
}

func (c cluster) slices() []*resourceapi.ResourceSlice {
	var all []*resourceapi.ResourceSlice
	groups := Slices(c.devices)
	for i, s := range groups {
		all = append(all, &resourceapi.ResourceSlice{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%05x-node-a", i)},
			Spec: resourceapi.ResourceSliceSpec{
				Driver: DriverName, NodeName: new("node-a"), Devices: s.Devices,
				Pool: resourceapi.ResourcePool{Name: "node-a", Generation: 1, ResourceSliceCount: int64(len(groups))},
			},
		})
	}
	return all
}

// a node of eight H100: two below each root, four at each NUMA node.
var eight = []string{
	"gpu-0000-18-00-0", "gpu-0000-2a-00-0", "gpu-0000-3a-00-0", "gpu-0000-5d-00-0",
	"gpu-0000-9a-00-0", "gpu-0000-ab-00-0", "gpu-0000-ba-00-0", "gpu-0000-db-00-0",
}

func TestTheSchedulerGivesWhatIsSelected(t *testing.T) {
	s := node(t, "h100", 8)
	c := cluster{classes: shippedClasses(t), devices: Devices(s, newest), taints: true}
	one := func(expressions ...string) resourceapi.DeviceRequest { return request(allClass, 1, expressions...) }
	for _, r := range []struct {
		name       string
		constraint string
		taken      []string
		requests   []resourceapi.DeviceRequest
		want       []string
	}{
		{name: "any", requests: []resourceapi.DeviceRequest{one()}, want: eight[:1]},
		{name: "the next", taken: eight[:3], requests: []resourceapi.DeviceRequest{one()}, want: eight[3:4]},
		{name: "all", requests: []resourceapi.DeviceRequest{request(allClass, 0)}, want: eight},
		{name: "more than there are", requests: []resourceapi.DeviceRequest{request(allClass, 9)}},
		{
			name: "NVIDIA's names", requests: []resourceapi.DeviceRequest{one(
				`device.attributes['gpu.nvidia.com'].productName.lowerAscii().matches('^.*h100.*$')`,
				`device.attributes['gpu.nvidia.com'].type == 'gpu' && device.attributes['gpu.nvidia.com'].architecture == 'Hopper'`,
				`device.attributes['gpu.nvidia.com'].cudaComputeCapability.compareTo(semver('9.0.0')) >= 0`,
				`device.attributes['gpu.nvidia.com'].driverVersion.isGreaterThan(semver('550.0.0'))`,
				`device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('40Gi')) >= 0`,
			)}, want: eight[:1],
		},
		{
			name: "our names", requests: []resourceapi.DeviceRequest{one(
				`device.attributes['gpu.gpuvet.dev'].brand == 'Nvidia' && device.attributes['gpu.gpuvet.dev'].minor == 6`,
				`device.attributes['gpu.gpuvet.dev'].healthState == 'Healthy' && device.attributes['gpu.gpuvet.dev'].recoveryAction == 'none'`,
				`device.attributes['gpu.gpuvet.dev'].driverVersion.isLessThan(semver('571.0.0'))`,
			)}, want: eight[6:7],
		},
		{
			name: "one of them", requests: []resourceapi.DeviceRequest{one(fmt.Sprintf(`device.attributes['gpu.gpuvet.dev'].uuid == '%s'`, s.GPUs[4].UUID))},
			want: eight[4:5],
		},
		{name: "another model", requests: []resourceapi.DeviceRequest{one(`device.attributes['gpu.nvidia.com'].productName == 'NVIDIA B200'`)}},
		{
			name: "where it is", requests: []resourceapi.DeviceRequest{one(`device.attributes['resource.kubernetes.io'].pciBusID == '0000:db:00.0'`)},
			want: eight[7:],
		},
		{
			name: "enough memory", requests: []resourceapi.DeviceRequest{one(`device.capacity['gpu.gpuvet.dev'].memory.compareTo(quantity('79Gi')) >= 0`)},
			want: eight[:1],
		},
		{name: "too much memory", requests: []resourceapi.DeviceRequest{one(`device.capacity['gpu.gpuvet.dev'].memory.compareTo(quantity('80Gi')) >= 0`)}},
		{
			name: "two below one root", constraint: "resource.kubernetes.io/pcieRoot", taken: []string{eight[1], eight[2]},
			requests: []resourceapi.DeviceRequest{one(), one()}, want: eight[4:6],
		},
		{
			name: "four at one NUMA node", constraint: "resource.kubernetes.io/numaNode", taken: eight[2:3],
			requests: []resourceapi.DeviceRequest{request(allClass, 4)}, want: eight[4:],
		},
		{name: "five at one NUMA node", constraint: "resource.kubernetes.io/numaNode", requests: []resourceapi.DeviceRequest{request(allClass, 5)}},
	} {
		t.Run(r.name, func(t *testing.T) {
			c.taken = r.taken
			got := c.allocate(t, claim(r.constraint, r.requests...))
			if diff := cmp.Diff(r.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

const healthyOnly = `device.attributes['gpu.gpuvet.dev'].?healthy.orValue(false)`

func TestTheSchedulerMindsFaults(t *testing.T) {
	s := node(t, "h100", 3)
	strike(s, 0, lost)
	memory := faultOf(detector.UncorrectableMemory, detector.TaintMemory, detector.NoExecute)
	strike(s, 1, memory)
	paused := faultOf(detector.Unmonitored, detector.TaintUnmonitored, detector.None)
	strike(s, 2, paused)
	c := cluster{classes: shippedClasses(t), devices: Devices(s, newest), taints: true}
	everything := resourceapi.DeviceToleration{Operator: resourceapi.DeviceTolerationOpExists}
	noExecuteOnly := tolerate("gpuvet.dev/lost")
	noExecuteOnly.Effect = resourceapi.DeviceTaintEffectNoExecute

	for _, r := range []struct {
		name    string
		gateOff bool
		request resourceapi.DeviceRequest
		want    []string
	}{
		{name: "NoSchedule and NoExecute are passed over, None is not", request: request(allClass, 1), want: eight[2:3]},
		{name: "no second one is well", request: request(allClass, 2)},
		{name: "all, of which some are sick", request: request(allClass, 0)},
		{name: "all that are well", request: request(allClass, 0, healthyOnly), want: eight[2:3]},
		{name: "one fault is tolerated", request: tolerating(request(allClass, 2), tolerate("gpuvet.dev/lost")), want: []string{eight[0], eight[2]}},
		{name: "with another effect", request: tolerating(request(allClass, 2), noExecuteOnly)},
		{name: "every fault is tolerated", request: tolerating(request(allClass, 0), everything), want: eight[:3]},
		{name: "who watches does not tolerate by that", request: watching(request(allClass, 0))},
		{name: "who watches and tolerates", request: tolerating(watching(request(allClass, 0)), everything), want: eight[:3]},
		{name: "without the gate, any", gateOff: true, request: request(allClass, 1), want: eight[:1]},
		{name: "without the gate, one that is well", gateOff: true, request: request(allClass, 1, healthyOnly), want: eight[2:3]},
		{name: "without the gate, two that are well", gateOff: true, request: request(allClass, 2, healthyOnly)},
	} {
		t.Run(r.name, func(t *testing.T) {
			c.taints = !r.gateOff
			got := c.allocate(t, claim("", r.request))
			if diff := cmp.Diff(r.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestTheSchedulerGivesMIGDevices(t *testing.T) {
	s := cut(t, 3, []string{"3g.40gb", "1g.10gb"}, []string{"3g.40gb", "3g.40gb"})
	c := cluster{classes: shippedClasses(t), devices: Devices(s, newest), taints: true}
	// A whole GPU has no profile: the type comes first, or a claim would fail on one.
	mig := `device.attributes['gpu.gpuvet.dev'].type == 'mig'`
	half := request(allClass, 1, mig+` && device.attributes['gpu.gpuvet.dev'].profile == '3g.40gb'`)
	for _, r := range []struct {
		name       string
		constraint string
		requests   []resourceapi.DeviceRequest
		parents    []int // of the GPUs above, by number
	}{
		{name: "by profile", requests: []resourceapi.DeviceRequest{half}, parents: []int{0}},
		{
			name: "by profile of NVIDIA's", requests: []resourceapi.DeviceRequest{request(allClass, 1, `device.attributes['gpu.nvidia.com'].?profile.orValue('') == '1g.10gb'`)},
			parents: []int{0},
		},
		{
			name: "two of one GPU", constraint: DriverName + "/parentUUID",
			requests: []resourceapi.DeviceRequest{request(allClass, 2, mig+` && device.attributes['gpu.gpuvet.dev'].profile == '3g.40gb'`)}, parents: []int{1, 1},
		},
		{
			name: "by size", requests: []resourceapi.DeviceRequest{request(allClass, 3, mig, `device.capacity['gpu.gpuvet.dev'].memory.compareTo(quantity('30Gi')) >= 0`)},
			parents: []int{0, 1, 1},
		},
		{name: "whole ones", requests: []resourceapi.DeviceRequest{request(allClass, 0, `device.attributes['gpu.nvidia.com'].type == 'gpu'`)}, parents: []int{2}},
	} {
		t.Run(r.name, func(t *testing.T) {
			got := c.allocate(t, claim(r.constraint, r.requests...))
			var parents []int
			for _, name := range got {
				d := named(t, c.devices, name)
				parents = append(parents, slices.IndexFunc(s.GPUs, func(g detector.GPUView) bool { return g.PCI == d.ID.PCI }))
			}
			slices.Sort(parents)
			if diff := cmp.Diff(r.parents, parents); diff != "" {
				t.Errorf("%s (-want +got):\n%s", got, diff)
			}
		})
	}
}

func TestTheSchedulerGivesByTier(t *testing.T) {
	s := node(t, "h100", 4)
	for i, mebibytes := range []uint64{24564, 46068, 143771} {
		s.GPUs[i].MemoryBytes = mebibytes << 20
	}
	s.GPUs[3].MemoryBytes = 0 // is not told
	c := cluster{classes: shippedClasses(t), devices: Devices(s, newest), taints: true}
	for i, class := range []string{"gpu-small.gpuvet.dev", "gpu-medium.gpuvet.dev", "gpu-large.gpuvet.dev"} {
		got := c.allocate(t, claim("", request(class, 0)))
		if diff := cmp.Diff(eight[i:i+1], got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", class, diff)
		}
	}
}

// The classes and claims that ship, on a node of whole GPUs, of which one is lost and
// one makes its pods leave, and on one of MIG devices, of which one has a fault of its
// own.
func TestTheSchedulerServesTheClaimsThatShip(t *testing.T) {
	gpus := node(t, "h100", 8)
	strike(gpus, 0, lost)
	strike(gpus, 5, faultOf(detector.UncorrectableMemory, detector.TaintMemory, detector.NoExecute))
	parts := cut(t, 2, []string{"1g.10gb", "3g.40gb"}, []string{"1g.10gb", "1g.10gb", "1g.10gb"})
	sick := parts.GPUs[1].Instances[0]
	strike(parts, 1, inInstance(faultOf(detector.UncorrectableMemory, detector.TaintMemory, detector.NoSchedule), sick.GPUInstance, sick.ComputeInstance))
	well := func(s *detector.Snapshot) *detector.Snapshot {
		again := *s
		again.GPUs = slices.Clone(s.GPUs)
		for i := range again.GPUs {
			again.GPUs[i].Conditions = nil
		}
		return &again
	}
	partNames := names(Devices(parts, newest))

	for _, r := range []struct {
		file, claim string
		s           *detector.Snapshot
		want        []string
	}{
		{"gpu.yaml", "gpu", gpus, eight[1:2]},
		{"gpu.yaml", "gpu", parts, nil},
		{"size.yaml", "medium", gpus, eight[1:2]},
		{"size.yaml", "at-least-70", gpus, eight[1:2]},
		{"near.yaml", "one-root", gpus, eight[2:4]},
		{"near.yaml", "one-numa-node", gpus, nil},
		{"near.yaml", "one-numa-node", well(gpus), eight[:4]},
		{"training.yaml", "eight", gpus, nil},
		{"training.yaml", "eight", well(gpus), eight},
		{"mig.yaml", "mig", parts, partNames[1:2]},
		{"mig.yaml", "mig-pair", parts, partNames[3:]},
		{"diagnostics.yaml", "diagnostics", gpus, eight},
		{"diagnostics.yaml", "diagnostics", parts, partNames},
	} {
		asked := shippedClaim(t, r.file, r.claim)
		for _, taints := range []bool{true, false} {
			// A server without the gate drops taints; what is healthy is an attribute.
			c := cluster{classes: shippedClasses(t), devices: Devices(r.s, newest), taints: taints}
			got := c.allocate(t, asked)
			slices.Sort(got)
			want := slices.Sorted(slices.Values(r.want))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s %s, taints %t (-want +got):\n%s", r.file, r.claim, taints, diff)
			}
		}
	}
}
