//go:build cgo

package worker

import (
	"errors"
	"fmt"

	binding "github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpuvet.dev/nvml/wire"
)

// callError is a call that failed.
type callError struct {
	call string // the function, or what was done
	code binding.Return
	kind wire.Kind
}

// Error says the cause too, which is in the call where there is no code.
func (e *callError) Error() string {
	switch {
	case e.code == binding.SUCCESS:
		return e.call
	case e.kind == wire.KindNotFound:
		return e.call + ": no such GPU"
	}
	return e.call + ": " + words(e.code)
}

// failed is the error of a call that was about no address.
func failed(call string, code binding.Return) *callError {
	e := &callError{call: call, code: code, kind: wire.KindOther}
	switch code {
	case binding.ERROR_UNINITIALIZED, binding.ERROR_DRIVER_NOT_LOADED, binding.ERROR_LIB_RM_VERSION_MISMATCH:
		e.kind = wire.KindRenewed
	case binding.ERROR_GPU_IS_LOST:
		e.kind = wire.KindLost
	}
	return e
}

// absent reports whether a code says that one value cannot be had, and nothing
// about the state of the GPU: it does not have it, the driver is too old to know
// it, or this process may not see it.
func absent(code binding.Return) bool {
	switch code {
	case binding.ERROR_NOT_SUPPORTED, binding.ERROR_NO_PERMISSION, binding.ERROR_FUNCTION_NOT_FOUND,
		binding.ERROR_INVALID_ARGUMENT, binding.ERROR_ARGUMENT_VERSION_MISMATCH, binding.ERROR_DEPRECATED,
		binding.ERROR_NOT_FOUND, binding.ERROR_NO_DATA, binding.ERROR_CORRUPTED_INFOROM,
		binding.ERROR_VGPU_ECC_NOT_SUPPORTED, binding.ERROR_FREQ_NOT_SUPPORTED:
		return true
	}
	return false
}

// answerOf is the error as the other side hears of it.
func answerOf(err error) *wire.Error {
	if e, ok := errors.AsType[*callError](err); ok {
		return &wire.Error{Kind: e.kind, Text: err.Error()}
	}
	return &wire.Error{Kind: wire.KindOther, Text: err.Error()}
}

// words says what a code means, in the same words whatever library is loaded.
func words(code binding.Return) string {
	switch code {
	case binding.ERROR_UNINITIALIZED:
		return "NVML is not initialised"
	case binding.ERROR_INVALID_ARGUMENT:
		return "invalid argument"
	case binding.ERROR_NOT_SUPPORTED:
		return "not supported"
	case binding.ERROR_NO_PERMISSION:
		return "no permission"
	case binding.ERROR_NOT_FOUND:
		return "not found"
	case binding.ERROR_INSUFFICIENT_SIZE:
		return "buffer is too small"
	case binding.ERROR_INSUFFICIENT_POWER:
		return "power cables of the GPU are not attached properly"
	case binding.ERROR_DRIVER_NOT_LOADED:
		return "driver is not loaded"
	case binding.ERROR_TIMEOUT:
		return "timeout"
	case binding.ERROR_IRQ_ISSUE:
		return "kernel has an interrupt issue with a GPU"
	case binding.ERROR_LIBRARY_NOT_FOUND:
		return "a library is missing"
	case binding.ERROR_FUNCTION_NOT_FOUND:
		return "library lacks the function"
	case binding.ERROR_CORRUPTED_INFOROM:
		return "infoROM is corrupted"
	case binding.ERROR_GPU_IS_LOST:
		return "GPU is lost"
	case binding.ERROR_RESET_REQUIRED:
		return "GPU requires a reset"
	case binding.ERROR_OPERATING_SYSTEM:
		return "operating system or cgroup blocks the GPU's control device"
	case binding.ERROR_LIB_RM_VERSION_MISMATCH:
		return "library and loaded driver differ in version"
	case binding.ERROR_IN_USE:
		return "GPU is in use"
	case binding.ERROR_MEMORY:
		return "out of memory"
	case binding.ERROR_NO_DATA:
		return "no data"
	case binding.ERROR_INSUFFICIENT_RESOURCES:
		return "out of resources"
	case binding.ERROR_ARGUMENT_VERSION_MISMATCH:
		return "version of the argument is unknown"
	case binding.ERROR_NOT_READY:
		return "system is not ready"
	case binding.ERROR_GPU_NOT_FOUND:
		return "no GPU found"
	case binding.ERROR_INVALID_STATE:
		return "state does not allow it"
	case binding.ERROR_UNKNOWN:
		return "internal driver error"
	}
	return fmt.Sprintf("NVML error %d", int(code))
}
