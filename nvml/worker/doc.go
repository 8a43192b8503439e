//go:build cgo

// Package worker is the worker's side of the door to NVML: the only code that
// calls the driver's library. See package wire for what it answers to.
package worker

import _ "github.com/NVIDIA/go-nvml/pkg/nvml"
