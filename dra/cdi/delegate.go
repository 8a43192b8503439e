package cdi

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/specs-go"
)

// remedy is how a node comes to a spec with all its GPUs; the service is part of
// NVIDIA's Container Toolkit since 1.18, and writes again when the driver changes.
const remedy = "enable nvidia-cdi-refresh.service of NVIDIA's Container Toolkit, or run " +
	"nvidia-ctk cdi generate --device-name-strategy=uuid --output=/var/run/cdi/nvidia.yaml"

// node knows the specs that others have put on the node. The library's own cache
// of them would read all files again whenever one claim comes or goes, or would
// have a goroutine that nobody waits for.
type node struct {
	host string
	dirs []string // on the node; a later one counts before an earlier one
	kind string

	files map[string]read // by path
}

// read is a spec as it was when its file looked like this.
type read struct {
	info fs.FileInfo
	spec *cdi.Spec
}

// delegate gives the IDs under which the node's own specs have the devices.
func (n *node) delegate(devices []Device) (edits, error) {
	found, unfit := n.look()
	all := edits{devices: make([]part, len(devices))}
	for i, d := range devices {
		if d.UUID == "" {
			return edits{}, fmt.Errorf("%s has no UUID by which a CDI spec could name it", d.Name)
		}
		id := n.kind + "=" + d.UUID
		named, err := n.find(found, d.UUID)
		if err == nil && named == nil {
			err = fmt.Errorf("no CDI spec in %s names it%s; %s", strings.Join(n.dirs, ", "), unfit, remedy)
		}
		if err == nil {
			err = n.present(named)
		}
		if err != nil {
			return edits{}, fmt.Errorf("%s: %w", id, err)
		}
		all.devices[i].ids = []string{id}
	}
	return all, nil
}

// look reads what has changed, and gives the specs of each folder. What cannot
// be read is told in the second value: a runtime passes over it, too.
func (n *node) look() ([][]*cdi.Spec, string) {
	var unfit []error
	all := make([][]*cdi.Spec, len(n.dirs))
	files := make(map[string]read)
	for i, dir := range n.dirs {
		seen, err := securejoin.SecureJoin(n.host, dir)
		if err != nil {
			unfit = append(unfit, err)
			continue
		}
		entries, err := os.ReadDir(seen)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			unfit = append(unfit, err)
		}
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); ext != ".json" && ext != ".yaml" || strings.HasPrefix(e.Name(), prefix) {
				continue
			}
			path := filepath.Join(seen, e.Name())
			r, err := n.read(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue // another claim's, gone since
			}
			if err != nil {
				unfit = append(unfit, err)
				continue
			}
			files[path] = r
			all[i] = append(all[i], r.spec)
		}
	}
	n.files = files
	if err := errors.Join(unfit...); err != nil {
		return all, " (" + strings.ReplaceAll(err.Error(), "\n", "; ") + ")"
	}
	return all, ""
}

// read reads a file, unless it is the one that was read before.
func (n *node) read(path string) (read, error) {
	info, err := os.Stat(path)
	if err != nil {
		return read{}, err
	}
	last, known := n.files[path]
	if known && os.SameFile(last.info, info) && last.info.ModTime().Equal(info.ModTime()) && last.info.Size() == info.Size() {
		return last, nil
	}
	if !info.Mode().IsRegular() {
		return read{}, fmt.Errorf("%s is not a file", path)
	}
	spec, err := cdi.ReadSpec(path, 0)
	return read{info, spec}, err
}

// find gives the device that a runtime would inject, or nil. A name that two
// specs of one folder have is none to a runtime, whatever the other folders have.
func (n *node) find(all [][]*cdi.Spec, name string) (*cdi.Device, error) {
	var found *cdi.Device
	for _, dir := range all {
		var here *cdi.Device
		for _, spec := range dir {
			d := spec.GetDevice(name)
			switch {
			case d == nil || spec.Kind != n.kind:
			case here != nil:
				return nil, fmt.Errorf("%s and %s both name it, and so no runtime knows it; remove one of them",
					onNode(n.host, here.GetSpec().GetPath()), onNode(n.host, spec.GetPath()))
			default:
				here = d
			}
		}
		if here != nil {
			found = here
		}
	}
	return found, nil
}

// present says which device node of a spec is missing. The runtime would refuse
// the container for it; and a spec that was written before the GPU had its node
// would start the container without (kubernetes-sigs/dra-driver-nvidia-gpu#1144).
func (n *node) present(d *cdi.Device) error {
	spec := onNode(n.host, d.GetSpec().GetPath())
	if len(d.ContainerEdits.DeviceNodes) == 0 {
		return fmt.Errorf("%s has no device node for it; %s", spec, remedy)
	}
	for _, nodes := range [][]*specs.DeviceNode{d.ContainerEdits.DeviceNodes, d.GetSpec().ContainerEdits.DeviceNodes} {
		for _, node := range nodes {
			path := cmp.Or(node.HostPath, node.Path)
			if err := device(filepath.Join(n.host, path)); err != nil {
				return fmt.Errorf("%s names %s, which %w; %s", spec, path, err, remedy)
			}
		}
	}
	return nil
}
