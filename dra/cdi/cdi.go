// Package cdi gives containers their GPUs through the Container Device
// Interface: it writes one spec per claim, and names the devices of specs that
// the container runtime is to inject.
//
// The spec of a claim is a file of its own, gpu.gpuvet.dev-claim_UID.json. Its
// devices are called gpu.gpuvet.dev/claim=UID-DEVICE, so no name ever stands for
// anything else: runtimes keep what they have read. What they contain depends on
// the [Mode]. In every mode a container finds in its environment
//
//	GPUVET_DEVICE_NAME      the UUID of one GPU or MIG device; NAME is that of
//	                        the device, in capitals and with _ for all else. The
//	                        container has exactly the devices that it finds here.
//	GPUVET_GPU_UUIDS        the UUIDs of all devices of the claim, with commas
//	                        between. A container with several claims sees those
//	                        of one of them; GPUVET_DEVICE_… has them all.
//	NVIDIA_VISIBLE_DEVICES  void, so that a runtime of NVIDIA's that is the
//	                        default adds no GPUs of its own accord.
//
// Nothing is kept in memory that matters: what [Specs.Write] made is known by
// its files, and after the driver was reloaded or replaced it is written again.
package cdi

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"tags.cncf.io/container-device-interface/pkg/parser"
	"tags.cncf.io/container-device-interface/specs-go"
)

// Vendor and class of the kind of our devices.
const (
	vendor = "gpu.gpuvet.dev"
	class  = "claim"
)

// Mode says where the edits of a container come from.
type Mode string

// The modes.
const (
	// Delegate leaves devices, libraries and hooks to the spec that NVIDIA's
	// Container Toolkit or the GPU Operator has put on the node.
	Delegate Mode = "delegate"
	// Minimal needs the driver alone: it has the device nodes, and mounts what
	// CUDA and NVML load and nvidia-smi. There are no hooks and no graphics.
	Minimal Mode = "minimal"
	// None has the environment only, for GPUs that are fake.
	None Mode = "none"
)

// Device is one device of a claim.
type Device struct {
	Name  string    // in the pool: gpu-0000-3b-00-0
	UUID  string    // GPU-… or MIG-…
	Minor int       // N of the GPU's /dev/nvidiaN; -1 if unknown
	MIG   *Instance // nil: the whole GPU
}

// Instance is a MIG device by the numbers of the driver.
type Instance struct {
	GPUInstance     int
	ComputeInstance int
}

// Options say where things are.
type Options struct {
	Mode Mode
	// Dir is where specs are written, as this process sees it; by default
	// /var/run/cdi. The runtime has to read it.
	Dir string
	// Host is where the node's root is seen: "/", which is the default, or the
	// folder at which a container has it mounted.
	Host string
	// SpecDirs are the folders on the node whose specs the runtime reads, later
	// ones before earlier ones; by default /etc/cdi and /var/run/cdi. Delegate
	// alone uses them.
	SpecDirs []string
	// Kind is that of the node's own devices; by default nvidia.com/gpu.
	Kind string
	// Driver says where the driver is now. Minimal alone uses it.
	Driver func() (Driver, error)
}

// Driver is an installed driver. Its paths are as this process sees them.
type Driver struct {
	Library string // the file libnvidia-ml.so.VERSION; the others lie beside it
	Root    string // what the driver's absolute paths are relative to
}

// Specs are the claims' specs on this node. Calls about one claim must not overlap;
// all others may.
type Specs struct {
	o     Options
	parts source

	mu sync.Mutex // guards what was read of the node's specs
}

// source gives the edits of a mode for devices of one claim. Its error says why
// a container cannot be given one of them.
type source func([]Device) (edits, error)

// edits are what a mode contributes to the spec of a claim.
type edits struct {
	common  specs.ContainerEdits
	devices []part // in the order of the devices
}

// part is what a mode contributes for one device.
type part struct {
	ids   []string // of devices in the node's own specs
	edits specs.ContainerEdits
}

// New checks the options, and touches no file.
func New(o Options) (*Specs, error) {
	o.Dir = cmp.Or(o.Dir, "/var/run/cdi")
	o.Host = filepath.Clean(cmp.Or(o.Host, "/"))
	o.Kind = cmp.Or(o.Kind, "nvidia.com/gpu")
	if len(o.SpecDirs) == 0 {
		o.SpecDirs = []string{"/etc/cdi", "/var/run/cdi"}
	}
	s := &Specs{o: o}
	switch o.Mode {
	case Delegate:
		if !parser.IsQualifiedName(o.Kind + "=any") {
			return nil, fmt.Errorf("CDI kind %q is not VENDOR/CLASS", o.Kind)
		}
		s.parts = (&node{host: o.Host, dirs: o.SpecDirs, kind: o.Kind}).delegate
	case Minimal:
		if o.Driver == nil {
			return nil, fmt.Errorf("CDI mode %q needs to know the driver", o.Mode)
		}
		s.parts = func(devices []Device) (edits, error) {
			driver, err := o.Driver()
			if err != nil {
				return edits{}, err
			}
			return installation{o.Host, driver}.minimal(devices)
		}
	case None:
		s.parts = func(devices []Device) (edits, error) {
			return edits{devices: make([]part, len(devices))}, nil
		}
	default:
		return nil, fmt.Errorf("CDI mode %q is none of %s, %s and %s", o.Mode, Delegate, Minimal, None)
	}
	return s, nil
}

// Ready says why no container can be given the device at present: a device node
// that is missing, or that no spec of the node names it. It is nil if one can.
func (s *Specs) Ready(d Device) error {
	_, err := s.look([]Device{d})
	return err
}

// look waits for files of others, which may take as long as it likes.
func (s *Specs) look(devices []Device) (edits, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parts(devices)
}

// Write makes the spec of a claim, by its UID, in place of one that it has
// already. It gives for each device, by its name, the CDI IDs that the kubelet is
// to be told: those of the node's spec first, ours last. A note is for [Specs.Note],
// and no container sees it. Where [Specs.Ready] has a reason against one of the
// devices, that is the error.
func (s *Specs) Write(claim string, devices []Device, note string) (map[string][]string, error) {
	ids, err := s.write(claim, devices, note)
	if err != nil {
		// What is unfinished takes space on a full disk, and List would name it.
		_ = os.Remove(s.file(claim, unfinished))
		return nil, fmt.Errorf("write CDI spec of claim %s: %w", claim, err)
	}
	return ids, nil
}

func (s *Specs) write(claim string, devices []Device, note string) (map[string][]string, error) {
	devices = once(devices)
	parts, err := s.look(devices)
	if err != nil {
		return nil, err
	}
	spec := &specs.Spec{Kind: vendor + "/" + class, ContainerEdits: parts.common}
	spec.ContainerEdits.Env = slices.Concat(parts.common.Env, forClaim(devices))
	if note != "" {
		spec.Annotations = map[string]string{noted: note}
	}
	ids := make(map[string][]string, len(devices))
	for i, d := range devices {
		name, part := claim+"-"+d.Name, parts.devices[i]
		part.edits.Env = append(part.edits.Env, forDevice(d))
		spec.Devices = append(spec.Devices, specs.Device{Name: name, ContainerEdits: part.edits})
		ids[d.Name] = append(part.ids, parser.QualifiedName(vendor, class, name))
	}
	return ids, s.put(claim, spec)
}

// once leaves out devices that are there already: two requests of a claim may
// have the same one.
func once(devices []Device) []Device {
	var kept []Device
	for _, d := range devices {
		if !slices.ContainsFunc(kept, func(k Device) bool { return k.Name == d.Name }) {
			kept = append(kept, d)
		}
	}
	return kept
}

// forClaim is the environment of every container that has a device of the claim.
func forClaim(devices []Device) []string {
	uuids := make([]string, len(devices))
	for i, d := range devices {
		uuids[i] = d.UUID
	}
	return []string{"GPUVET_GPU_UUIDS=" + strings.Join(uuids, ","), "NVIDIA_VISIBLE_DEVICES=void"}
}

// forDevice is the variable of every container that has the device.
func forDevice(d Device) string {
	name := strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(d.Name))
	return "GPUVET_DEVICE_" + name + "=" + d.UUID
}
