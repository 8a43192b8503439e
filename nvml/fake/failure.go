package fake

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"gpuvet.dev/nvml"
)

// Failure is the name of an NVML error, "unknown" for NVML_ERROR_UNKNOWN. Empty:
// there is none.
type Failure string

func failures() map[Failure]uint32 {
	return map[Failure]uint32{
		"uninitialized":          1,
		"invalid-argument":       2,
		"not-supported":          3,
		"no-permission":          4,
		"not-found":              6,
		"insufficient-power":     8,
		"driver-not-loaded":      9,
		"timeout":                10,
		"irq-issue":              11,
		"corrupted-inforom":      14,
		"gpu-is-lost":            15,
		"reset-required":         16,
		"operating-system":       17,
		"lib-rm-mismatch":        18,
		"in-use":                 19,
		"memory":                 20,
		"no-data":                21,
		"insufficient-resources": 23,
		"not-ready":              27,
		"gpu-not-found":          28,
		"invalid-state":          29,
		"unknown":                999,
	}
}

// Code is NVML's number of it; 0 for none.
func (f Failure) Code() uint32 { return failures()[f] }

// err is what the scripted driver answers for it.
func (f Failure) err() error {
	switch f {
	case "gpu-is-lost":
		return nvml.ErrLost
	case "driver-not-loaded":
		return nvml.ErrNoDriver
	case "not-found", "gpu-not-found":
		return nvml.ErrNotFound
	case "timeout":
		return nvml.ErrTimeout
	}
	return fmt.Errorf("the driver says: %w", errors.New(string(f)))
}

func failureNames() []string {
	var names []string
	for _, f := range slices.Sorted(maps.Keys(failures())) {
		names = append(names, string(f))
	}
	return names
}
