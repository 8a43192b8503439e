// Package pool turns a snapshot into what Kubernetes hears of this node's GPUs: the
// devices of the node's resource pool, each with its attributes, its capacity and the
// taints of the faults that concern it, and the slices that they are published in.
//
// It is pure: the same snapshot gives the same devices, whenever and however often it
// is asked, and what stays the same in two snapshots stays the same in what is
// published. Times of taints are those of the faults, so that neither a restart nor a
// second look moves them.
package pool

import (
	"cmp"
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/resourceslice"

	"gpuvet.dev/detector"
	"gpuvet.dev/nvml"
)

// DriverName is the DRA driver that the devices belong to.
const DriverName = "gpu.gpuvet.dev"

// Device is one allocatable device: a whole GPU that is not partitioned, or a MIG
// device.
type Device struct {
	// Name is a DNS label made from the PCI address, and for a MIG device from its
	// profile, its placement and its number: gpu-0000-3b-00-0,
	// gpu-0000-3b-00-0-mig-1g-10gb-4-1-0. It outlives the loss of the GPU.
	Name string
	// ID has the PCI address and the device's own UUID; gi and ci for a MIG device.
	ID     detector.Device
	Parent string // UUID of the GPU, for a MIG device
	Minor  int    // N of /dev/nvidiaN, of the GPU; -1 if unknown
	Status detector.Status
	// Healthy: no taint of ours fences it, published or left out for the limits.
	Healthy bool
	// Conditions are the faults that concern it, worst first: its own, those of the
	// whole GPU, and those of the node that fence.
	Conditions []detector.Condition
	Published  resourceapi.Device
}

// Devices lists every device of the node in PCI order, then by GPU instance and
// compute instance. A GPU that is lost or missing stays, with what was known of it; one
// that was never described, of which the kernel log alone knows an address, is not
// there yet.
func Devices(s *detector.Snapshot, l Limits) []Device {
	var devices []Device
	node := slices.DeleteFunc(slices.Clone(s.Node), func(c detector.Condition) bool { return !fences(c) })
	for i := range s.GPUs {
		g := &s.GPUs[i]
		switch {
		case g.UUID == "":
		case g.MIG:
			for j := range g.Instances {
				devices = append(devices, render(subject{s: s, gpu: g, instance: &g.Instances[j]}, node, l))
			}
		default:
			devices = append(devices, render(subject{s: s, gpu: g}, node, l))
		}
	}
	slices.SortFunc(devices, func(a, b Device) int {
		return cmp.Or(
			cmp.Compare(a.ID.PCI, b.ID.PCI),
			cmp.Compare(number(a.ID.GPUInstance), number(b.ID.GPUInstance)),
			cmp.Compare(number(a.ID.ComputeInstance), number(b.ID.ComputeInstance)),
		)
	})
	return devices
}

func number(n *int) int {
	if n == nil {
		return -1
	}
	return *n
}

// Find is the device with a name.
func Find(devices []Device, name string) (*Device, bool) {
	for i := range devices {
		if devices[i].Name == name {
			return &devices[i], true
		}
	}
	return nil, false
}

// sliceDevices is how many devices the API server takes in one slice if any of them is
// tainted. Without taints it takes twice as many, but then the first fault would make
// the slice invalid.
const sliceDevices = 64

// Slices groups devices into the slices of the pool: one while they fit, which is then
// the only thing to write however many of them change; else one for each physical GPU,
// so that a fault of one GPU is one write too. No devices are no slices.
func Slices(devices []Device) []resourceslice.Slice {
	var all []resourceslice.Slice
	for i := range devices {
		another := i > 0 && len(devices) > sliceDevices && devices[i].ID.PCI != devices[i-1].ID.PCI
		if i == 0 || another {
			all = append(all, resourceslice.Slice{})
		}
		last := &all[len(all)-1]
		last.Devices = append(last.Devices, devices[i].Published)
	}
	return all
}

// subject is what one device is made from.
type subject struct {
	s        *detector.Snapshot
	gpu      *detector.GPUView
	instance *nvml.Instance // nil: the whole GPU
	device   *Device        // as far as it is made
}

// render makes one device. The faults of the node are those that fence.
func render(sub subject, node []detector.Condition, l Limits) Device {
	g := sub.gpu
	d := Device{ID: detector.Device{PCI: g.PCI, UUID: g.UUID}, Minor: -1}
	if g.Minor != nil {
		d.Minor = *g.Minor
	}
	own, attributes, capacities := g.Conditions, gpuAttributes, gpuCapacities
	if i := sub.instance; i != nil {
		d.ID.UUID, d.Parent = i.UUID, g.UUID
		d.ID.GPUInstance, d.ID.ComputeInstance = &i.GPUInstance, &i.ComputeInstance
		own, attributes, capacities = g.InstanceConditions(i.GPUInstance, i.ComputeInstance), migAttributes, migCapacities
	}
	d.Name = name(g.PCI, sub.instance)
	d.Conditions = slices.Concat(own, node)
	slices.SortStableFunc(d.Conditions, detector.Worse)

	marks := marked(d.Conditions, refused(g, d.ID))
	d.Healthy = !slices.ContainsFunc(marks, mark.fences)
	d.Status = status(&d, g.Fresh)

	sub.device = &d
	d.Published = resourceapi.Device{
		Name:       d.Name,
		Attributes: attributesOf(attributes, sub),
		Capacity:   capacitiesOf(capacities, sub),
		Taints:     published(marks, l),
	}
	return d
}

// status answers "is it fit?" of one device, as its GPU does for itself, and never
// otherwise than its taints.
func status(d *Device, fresh bool) detector.Status {
	degrades := func(c detector.Condition) bool { return c.Class != detector.Application }
	switch {
	case !d.Healthy:
		return detector.Unhealthy
	case !fresh:
		return detector.Unknown
	case slices.ContainsFunc(d.Conditions, degrades):
		return detector.Degraded
	default:
		return detector.Healthy
	}
}
