package dra

import (
	"context"
	"fmt"
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"

	"gpuvet.dev/detector"
	"gpuvet.dev/dra/cdi"
	"gpuvet.dev/dra/gpuconfig"
	"gpuvet.dev/dra/pool"
)

// wish is what a claim was allocated on this node.
type wish struct {
	claim   *detector.Claim
	devices []wished // of the claim, in the same order
}

// wished is one device of a claim.
type wished struct {
	name        string // in the pool
	checked     bool   // before it is given
	tolerations []resourceapi.DeviceToleration
}

// wish reads a claim. An error is about this claim alone.
func (p *Plugin) wish(ctx context.Context, c *resourceapi.ResourceClaim) (*wish, error) {
	w := &wish{claim: &detector.Claim{UID: string(c.UID), Namespace: c.Namespace, Name: c.Name, Pods: podsOf(c)}}
	device := p.finder(w.claim.UID)
	for _, result := range c.Status.Allocation.Devices.Results {
		if result.Driver != pool.DriverName || result.Pool != p.o.Node {
			continue
		}
		level, err := gpuconfig.PreflightOf(p.o.Config.Preflight, pool.DriverName, c.Status.Allocation, result)
		if err != nil {
			return nil, kindError{KindConfig, err}
		}
		id, known := device(result.Device)
		if !known {
			return nil, kindError{KindUnknown, fmt.Errorf("device %s is not, or not yet, one of node %s", result.Device, p.o.Node)}
		}
		admin := result.AdminAccess != nil && *result.AdminAccess
		w.add(wished{result.Device, level == gpuconfig.State && !admin, result.Tolerations}, detector.ClaimDevice{
			Name: result.Device, Requests: []string{result.Request}, Device: id, Admin: admin,
		})
	}
	if len(w.devices) == 0 {
		return nil, kindError{KindUnknown, fmt.Errorf("no device of node %s is allocated to the claim", p.o.Node)}
	}
	w.claim.Tenant = p.tenants.of(ctx, c.Namespace)
	return w, nil
}

// podsOf are those that a claim is reserved for.
func podsOf(c *resourceapi.ResourceClaim) []detector.ClaimPod {
	var pods []detector.ClaimPod
	for _, consumer := range c.Status.ReservedFor {
		if consumer.APIGroup == "" && consumer.Resource == "pods" {
			pods = append(pods, detector.ClaimPod{Name: consumer.Name, UID: string(consumer.UID)})
		}
	}
	return pods
}

// finder finds devices by name: those that the claim has already, for its containers
// run with them whatever became of the pool, and then those of the pool.
func (p *Plugin) finder(claim string) func(name string) (detector.Device, bool) {
	s := p.o.Detector.Snapshot()
	devices := p.devices(s)
	known, ok := s.Claim(claim)
	return func(name string) (detector.Device, bool) {
		if ok && prepared(known, s) {
			if i := slices.IndexFunc(known.Devices, func(d detector.ClaimDevice) bool { return d.Name == name }); i >= 0 {
				return known.Devices[i].Device, true
			}
		}
		d, found := pool.Find(devices, name)
		if !found {
			return detector.Device{}, false
		}
		return d.ID, true
	}
}

// add adds a device, or another request to one that is there.
func (w *wish) add(d wished, held detector.ClaimDevice) {
	for i := range w.claim.Devices {
		if there := &w.claim.Devices[i]; there.Name == held.Name && there.Admin == held.Admin {
			there.Requests = append(there.Requests, held.Requests...)
			w.devices[i].checked = w.devices[i].checked || d.checked
			return
		}
	}
	w.claim.Devices = append(w.claim.Devices, held)
	w.devices = append(w.devices, d)
}

// granted reports whether containers may have all of it already.
func (w *wish) granted(s *detector.Snapshot) bool {
	known, ok := s.Claim(w.claim.UID)
	return ok && prepared(known, s) && slices.EqualFunc(known.Devices, w.claim.Devices, sameDevice)
}

// prepared reports whether a claim was prepared under this boot. What was prepared
// under another left nothing behind.
func prepared(c *detector.Claim, s *detector.Snapshot) bool { return c.Prepared && c.Boot == s.Boot }

func sameDevice(a, b detector.ClaimDevice) bool {
	same := func(x, y *int) bool { return x == y || x != nil && y != nil && *x == *y }
	return a.Name == b.Name && a.Admin == b.Admin && a.PCI == b.PCI && a.UUID == b.UUID &&
		same(a.GPUInstance, b.GPUInstance) && same(a.ComputeInstance, b.ComputeInstance)
}

// devices are those of the pool.
func (p *Plugin) devices(s *detector.Snapshot) []pool.Device { return pool.Devices(s, p.o.Limits()) }

// spec is what the CDI spec of a claim is made from.
func (p *Plugin) spec(c *detector.Claim, s *detector.Snapshot) []cdi.Device {
	devices := p.devices(s)
	all := make([]cdi.Device, len(c.Devices))
	for i, d := range c.Devices {
		all[i] = cdi.Device{Name: d.Name, UUID: d.UUID, Minor: -1}
		if known, ok := pool.Find(devices, d.Name); ok {
			all[i].Minor = known.Minor
		}
		if d.GPUInstance != nil && d.ComputeInstance != nil {
			all[i].MIG = &cdi.Instance{GPUInstance: *d.GPUInstance, ComputeInstance: *d.ComputeInstance}
		}
	}
	return all
}

// answer is what the kubelet hears of a claim that is prepared. IDs are CDI devices by
// the name in the pool.
func (p *Plugin) answer(c *detector.Claim, s *detector.Snapshot, ids map[string][]string) []kubeletplugin.Device {
	devices := p.devices(s)
	all := make([]kubeletplugin.Device, len(c.Devices))
	for i, d := range c.Devices {
		all[i] = kubeletplugin.Device{Requests: d.Requests, PoolName: p.o.Node, DeviceName: d.Name, CDIDeviceIDs: ids[d.Name]}
		if known, ok := pool.Find(devices, d.Name); ok {
			all[i].Metadata = &kubeletplugin.DeviceMetadata{Attributes: attributes(known.Published.Attributes)}
		}
	}
	return all
}

// attributes are those published, by the names that metadata files have.
func attributes(published map[resourceapi.QualifiedName]resourceapi.DeviceAttribute) map[string]resourceapi.DeviceAttribute {
	named := make(map[string]resourceapi.DeviceAttribute, len(published))
	for name, value := range published {
		named[string(name)] = value
	}
	return named
}
