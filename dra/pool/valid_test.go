package pool

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/dynamic-resource-allocation/resourceslice"

	"gpuvet.dev/detector"
	"gpuvet.dev/nvml/fake"
)

// serverLimits are what API servers of a version take in a slice, by their validation:
// pkg/apis/resource/validation of Kubernetes 1.34, and of 1.35 to 1.37.
type serverLimits struct {
	devices, taintedDevices, taints int
	effects                         []resourceapi.DeviceTaintEffect
}

func serverOf(minor int) serverLimits {
	if minor == 34 {
		return serverLimits{128, 128, 4, []resourceapi.DeviceTaintEffect{"NoSchedule", "NoExecute"}}
	}
	return serverLimits{128, 64, 16, []resourceapi.DeviceTaintEffect{"None", "NoSchedule", "NoExecute"}}
}

var (
	identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,31}$`)
	semver     = regexp.MustCompile(`^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)$`)
)

// valid complains of what an API server would refuse.
func valid(t *testing.T, all []resourceslice.Slice, minor int) {
	t.Helper()
	server := serverOf(minor)
	seen := map[string]bool{}
	for _, s := range all {
		limit := server.devices
		for _, d := range s.Devices {
			if len(d.Taints) > 0 {
				limit = server.taintedDevices
			}
		}
		if len(s.Devices) == 0 || len(s.Devices) > limit {
			t.Errorf("%d devices in a slice, of at most %d", len(s.Devices), limit)
		}
		for _, d := range s.Devices {
			validDevice(t, d, server)
			if seen[d.Name] {
				t.Errorf("%s is there twice", d.Name)
			}
			seen[d.Name] = true
		}
		// What the types themselves say, for 1.37 and what comes after.
		spec := resourceapi.ResourceSliceSpec{
			Driver: DriverName, NodeName: new("node-a"), Devices: s.Devices,
			Pool: resourceapi.ResourcePool{Name: "node-a", Generation: 1, ResourceSliceCount: int64(len(all))},
		}
		create := operation.Operation{Type: operation.Create, Options: map[string]bool{"DRAPartitionableDevicesType": false}}
		faults := resourceapi.Validate_ResourceSliceSpec(t.Context(), create, field.NewPath("spec"), &spec, nil)
		if len(faults) > 0 {
			t.Error(faults.ToAggregate())
		}
	}
}

func validDevice(t *testing.T, d resourceapi.Device, server serverLimits) {
	t.Helper()
	fault := func(what string, value any) { t.Errorf("%s: %s: %v", d.Name, what, value) }
	if faults := validation.IsDNS1123Label(d.Name); len(faults) > 0 {
		fault("name", faults)
	}
	if n := len(d.Attributes) + len(d.Capacity); n > 32 {
		fault("attributes and capacities", n)
	}
	var qualified []resourceapi.QualifiedName
	for name, a := range d.Attributes {
		qualified = append(qualified, name)
		validAttribute(t, d.Name+": "+string(name), a)
	}
	for name, c := range d.Capacity {
		qualified = append(qualified, name)
		if c.Value.Sign() <= 0 {
			fault("capacity "+string(name), c.Value)
		}
	}
	for _, name := range qualified {
		domain, id, found := strings.Cut(string(name), "/")
		if !found {
			domain, id = DriverName, domain
		}
		if !identifier.MatchString(id) || len(domain) > 63 || len(validation.IsDNS1123Subdomain(domain)) > 0 {
			fault("qualified name", name)
		}
	}
	if len(d.Taints) > server.taints {
		fault("taints", len(d.Taints))
	}
	keys := map[string]bool{}
	for _, taint := range d.Taints {
		if len(validation.IsQualifiedName(taint.Key)) > 0 || taint.Value == "" || len(validation.IsValidLabelValue(taint.Value)) > 0 {
			fault("taint", taint)
		}
		if !slices.Contains(server.effects, taint.Effect) {
			fault("effect", taint.Effect)
		}
		if at := taint.TimeAdded; at == nil || at.IsZero() || at.Nanosecond() != 0 {
			fault("time of taint", at)
		}
		if keys[taint.Key] {
			fault("twice", taint.Key)
		}
		keys[taint.Key] = true
	}
}

func validAttribute(t *testing.T, name string, a resourceapi.DeviceAttribute) {
	t.Helper()
	values := 0
	if a.IntValue != nil {
		values++
	}
	if a.BoolValue != nil {
		values++
	}
	if s := a.StringValue; s != nil {
		values++
		if *s == "" || len(*s) > 64 || !utf8.ValidString(*s) {
			t.Errorf("%s: %q", name, *s)
		}
	}
	if s := a.VersionValue; s != nil {
		values++
		if len(*s) > 64 || !semver.MatchString(*s) {
			t.Errorf("%s: version %q", name, *s)
		}
	}
	if values != 1 {
		t.Errorf("%s has %d values", name, values)
	}
}

func TestServersOfEveryVersionTakeTheSlices(t *testing.T) {
	every := []detector.Condition{
		lost,
		faultOf(detector.UncorrectableMemory, detector.TaintMemory, detector.NoExecute),
		faultOf(detector.LinkFault, detector.TaintLink, detector.NoSchedule),
		faultOf(detector.ThermalFault, detector.TaintThermal, detector.NoSchedule),
		faultOf(detector.Unresponsive, detector.TaintUnresponsive, detector.NoSchedule),
		faultOf(detector.RebootRequired, detector.TaintRebootRequired, detector.NoSchedule),
		faultOf(detector.ResetRequired, detector.TaintResetRequired, detector.NoSchedule),
		faultOf(detector.Unmonitored, detector.TaintUnmonitored, detector.None),
	}
	snapshots := map[string]*detector.Snapshot{}
	for _, profile := range fake.Profiles() {
		snapshots[profile] = node(t, profile, 8)
	}
	sevenths := slices.Repeat([]string{"1g.10gb"}, 7)
	snapshots["mig"] = cut(t, 8, []string{"3g.40gb", "2g.20gb", "1g.10gb", "1g.10gb"}, sevenths, []string{"1c.3g.40gb", "2c.3g.40gb"})
	snapshots["mig, 112 devices"] = cut(t, 16, slices.Repeat([][]string{sevenths}, 16)...)
	for name, s := range snapshots {
		t.Run(name, func(t *testing.T) {
			for minor := 34; minor <= 37; minor++ {
				valid(t, Slices(Devices(s, LimitsOf(1, minor))), minor)
			}
			for i := range s.GPUs {
				strike(s, i, every...)
			}
			for minor := 34; minor <= 37; minor++ {
				valid(t, Slices(Devices(s, LimitsOf(1, minor))), minor)
			}
		})
	}
}
