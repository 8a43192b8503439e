package dra

import (
	"encoding/json"
	"errors"
	"fmt"

	"tags.cncf.io/container-device-interface/pkg/parser"

	"gpuvet.dev/dra/cdi"
	"gpuvet.dev/dra/gpuconfig"
)

// Config is the section dra of the config file.
type Config struct {
	// Enabled says whether the GPUs are offered by our own driver.
	Enabled Enabled `json:"enabled"`
	// CDI says where the devices and libraries of a container come from; empty: as
	// suits the GPUs, delegate for real ones and none for those of a script.
	CDI cdi.Mode `json:"cdi,omitempty"`
	// CDIKind is the kind of the node's own CDI devices, for CDI delegate.
	CDIKind string `json:"cdiKind"`
	// Preflight is what is looked at before a device is given to a claim. A
	// DeviceClass may say otherwise, a claim may only ask for more.
	Preflight gpuconfig.Preflight `json:"preflight"`
}

// Enabled is auto, true or false.
type Enabled string

// The values.
const (
	// EnabledAuto leaves the GPUs alone where another driver or device plugin
	// offers them already.
	EnabledAuto  Enabled = "auto"
	EnabledTrue  Enabled = "true"
	EnabledFalse Enabled = "false"
)

// UnmarshalJSON reads auto, true or false.
func (e *Enabled) UnmarshalJSON(data []byte) error {
	switch string(data) {
	case `"auto"`:
		*e = EnabledAuto
	case "true":
		*e = EnabledTrue
	case "false":
		*e = EnabledFalse
	default:
		return fmt.Errorf("%s: expected auto, true or false", data)
	}
	return nil
}

// MarshalJSON writes what UnmarshalJSON reads.
func (e Enabled) MarshalJSON() ([]byte, error) {
	if e == EnabledTrue || e == EnabledFalse {
		return []byte(e), nil
	}
	return json.Marshal(string(e))
}

// DefaultConfig is what holds where the file says nothing.
func DefaultConfig() Config {
	return Config{Enabled: EnabledAuto, CDIKind: "nvidia.com/gpu", Preflight: gpuconfig.State}
}

// Validate names each field whose value cannot be used, and what can.
func (c Config) Validate() error {
	var faults []error
	switch c.Enabled {
	case EnabledAuto, EnabledTrue, EnabledFalse:
	default:
		faults = append(faults, fmt.Errorf("dra.enabled: %q: expected auto, true or false", string(c.Enabled)))
	}
	switch c.CDI {
	case "", cdi.Delegate, cdi.Minimal, cdi.None:
	default:
		faults = append(faults, fmt.Errorf("dra.cdi: %q: expected %s, %s or %s", c.CDI, cdi.Delegate, cdi.Minimal, cdi.None))
	}
	if !parser.IsQualifiedName(c.CDIKind + "=any") {
		faults = append(faults, fmt.Errorf("dra.cdiKind: %q: expected VENDOR/CLASS such as nvidia.com/gpu", c.CDIKind))
	}
	switch c.Preflight {
	case gpuconfig.State, gpuconfig.None:
	default:
		faults = append(faults, fmt.Errorf("dra.preflight: %q: expected %s or %s", c.Preflight, gpuconfig.State, gpuconfig.None))
	}
	return errors.Join(faults...)
}
