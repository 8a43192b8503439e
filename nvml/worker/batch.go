//go:build cgo

package worker

import (
	binding "github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpuvet.dev/nvml/wire"
)

// gpu is a GPU that was reached, with what is asked for once. Its handle is good
// until a call about it fails.
type gpu struct {
	device    binding.Device
	pci       string
	maxClocks map[string]float64
	links     links
}

// reach looks a GPU up by its address, which initialises that GPU and no other.
func (s *session) reach(pci string) (*gpu, error) {
	if g := s.gpus[pci]; g != nil {
		return g, nil
	}
	const call = "nvmlDeviceGetHandleByPciBusId_v2"
	if !s.lib.has(call) {
		return nil, failed(call, binding.ERROR_FUNCTION_NOT_FOUND)
	}
	device, code := s.lib.DeviceGetHandleByPciBusId(pci)
	switch code {
	case binding.SUCCESS:
	case binding.ERROR_NOT_FOUND, binding.ERROR_INVALID_ARGUMENT:
		return nil, &callError{call: call, code: code, kind: wire.KindNotFound}
	default:
		return nil, failed(call, code)
	}
	g := &gpu{device: device, pci: pci}
	s.gpus[pci] = g
	return g, nil
}

// batch is a row of calls about one GPU, most of which may fail without harm to
// the others. Once the GPU is lost or the driver gone, no further call is made.
type batch struct {
	*gpu
	lib   *library
	whole bool  // it is of no use if a value fails that the GPU is able to give
	spare bool  // a value that fails now is absent, whatever the reason
	ended error // the GPU is lost or the driver gone
	odd   error // why the first value failed that the GPU is able to give
	given int   // values
}

// take makes a batch. One without any value is an error.
func (s *session) take(pci string, calls func(*batch)) error {
	g, err := s.reach(pci)
	if err != nil {
		return err
	}
	b := batch{gpu: g, lib: s.lib}
	calls(&b)
	if b.ended == nil && b.odd == nil && b.given > 0 {
		return nil
	}
	delete(s.gpus, pci)
	switch {
	case b.ended != nil:
		return b.ended
	case b.odd != nil && (b.whole || b.given == 0):
		return b.odd
	case b.given == 0:
		// A handle that went stale looks like a GPU that can do nothing.
		_, err = s.reach(pci)
	}
	return err
}

// asks makes one call of a batch, if the library has the function.
func asks[T any](b *batch, function string, call func() (T, binding.Return)) (value T, ok bool) {
	if b.ended != nil || !b.lib.has(function) {
		return value, false
	}
	value, code := call()
	if !b.note(function, code) {
		var none T
		return none, false
	}
	return value, true
}

// note takes down the outcome of a call, and reports whether it gave a value.
func (b *batch) note(function string, code binding.Return) bool {
	if code == binding.SUCCESS {
		b.given++
		return true
	}
	if absent(code) {
		return false
	}
	err := failed(function, code)
	switch {
	case err.kind != wire.KindOther:
		b.ended = err
	case b.odd == nil && !b.spare:
		b.odd = err
	}
	return false
}
