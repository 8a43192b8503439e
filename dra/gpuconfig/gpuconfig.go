// Package gpuconfig is what a ResourceClaim or a DeviceClass may say about GPUs
// beside which it wants: the opaque configuration of the driver gpu.gpuvet.dev.
//
//	config:
//	- requests: [gpu]
//	  opaque:
//	    driver: gpu.gpuvet.dev
//	    parameters:
//	      apiVersion: gpuvet.dev/v1alpha1
//	      kind: GPUConfig
//	      preflight: state
//
// It is read when a claim is prepared, strictly: an unknown key or a bad value keeps
// that claim, and no other, from its devices.
package gpuconfig

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"sigs.k8s.io/json"
)

// What the type of a configuration is called.
const (
	APIVersion = "gpuvet.dev/v1alpha1"
	Kind       = "GPUConfig"
)

// Preflight says what is looked at before a device is given to a claim.
type Preflight string

// The levels. Empty stands for that of whoever was asked before.
const (
	// State has NVML look at the GPU, and refuses one with a fault that fences or
	// with a repair that waits for a reset.
	State Preflight = "state"
	// None gives the device as it is.
	None Preflight = "none"
)

// GPUConfig is one such configuration.
type GPUConfig struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Preflight  Preflight `json:"preflight,omitempty"`
}

// Decode reads a configuration. All that is wrong is told at once.
func Decode(raw []byte) (GPUConfig, error) {
	var c GPUConfig
	faults, err := json.UnmarshalStrict(raw, &c)
	if err != nil {
		return GPUConfig{}, fmt.Errorf("decode: %w", err)
	}
	if c.APIVersion != APIVersion {
		faults = append(faults, fmt.Errorf("apiVersion is %q, expected %s", c.APIVersion, APIVersion))
	}
	if c.Kind != Kind {
		faults = append(faults, fmt.Errorf("kind is %q, expected %s", c.Kind, Kind))
	}
	switch c.Preflight {
	case "", State, None:
	default:
		faults = append(faults, fmt.Errorf("preflight is %q, expected %s or %s", c.Preflight, State, None))
	}
	if len(faults) == 0 {
		return c, nil
	}
	texts := make([]string, len(faults))
	for i, fault := range faults {
		texts[i] = fault.Error()
	}
	return GPUConfig{}, errors.New(strings.Join(texts, "; ")) // the kubelet shows one line
}

// PreflightOf is the level for one device of an allocation. The node's own holds
// unless the configuration of a DeviceClass says otherwise. A claim, which anybody in
// a namespace may write, can ask for more than these and not for less: a device that
// is unfit fails whoever gets it next, and the node answers for what it gives out.
//
// Configuration of other drivers is passed over.
func PreflightOf(node Preflight, driver string, a *resourceapi.AllocationResult, result resourceapi.DeviceRequestAllocationResult) (Preflight, error) {
	class, claim := node, Preflight("")
	for _, c := range resourceclaim.ConfigForResult(a.Devices.Config, result) {
		if c.Opaque.Driver != driver {
			continue
		}
		decoded, err := Decode(c.Opaque.Parameters.Raw)
		if err != nil {
			return "", fmt.Errorf("configuration of request %s (%s): %w", result.Request, c.Source, err)
		}
		if c.Source == resourceapi.AllocationConfigSourceClass {
			class = cmp.Or(decoded.Preflight, class)
		} else {
			claim = cmp.Or(decoded.Preflight, claim)
		}
	}
	if claim == None && class != None {
		return "", fmt.Errorf("configuration of request %s: preflight is %s, expected %s: only a DeviceClass may ask for less than the node", result.Request, claim, class)
	}
	return cmp.Or(claim, class), nil
}
