//go:build cgo

package worker

import (
	"encoding/binary"
	"math"

	binding "github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpuvet.dev/nvml"
)

// fields asks for many values in one call, which has the driver look them up
// together. Those that it gave are in the answer, by their number.
func (b *batch) fields(ids ...uint32) map[uint32]uint64 {
	const function = "nvmlDeviceGetFieldValues"
	if b.ended != nil || len(ids) == 0 || !b.lib.has(function) {
		return nil
	}
	values := make([]binding.FieldValue, len(ids))
	for i, id := range ids {
		// What the library leaves alone is not there.
		values[i] = binding.FieldValue{FieldId: id, NvmlReturn: uint32(binding.ERROR_NOT_SUPPORTED)}
	}
	if code := b.device.GetFieldValues(values); code != binding.SUCCESS {
		b.note(function, code)
		return nil
	}
	found := map[uint32]uint64{}
	for _, v := range values {
		if b.note(function, binding.Return(v.NvmlReturn)) {
			if n, ok := number(v); ok {
				found[v.FieldId] = n
			}
		}
	}
	return found
}

// number is the value of a field; not ok if it is a sentinel or no natural number.
func number(v binding.FieldValue) (uint64, bool) {
	raw := binary.NativeEndian.Uint64(v.Value[:])
	low := binary.NativeEndian.Uint32(v.Value[:])
	switch binding.ValueType(v.ValueType) {
	case binding.VALUE_TYPE_DOUBLE:
		f := math.Float64frombits(raw)
		return uint64(f), f >= 0 && f < math.MaxInt64 // NaN is neither
	case binding.VALUE_TYPE_UNSIGNED_INT:
		return uint64(low), low != math.MaxUint32
	case binding.VALUE_TYPE_UNSIGNED_LONG, binding.VALUE_TYPE_UNSIGNED_LONG_LONG:
		return raw, raw <= math.MaxInt64
	case binding.VALUE_TYPE_SIGNED_LONG_LONG:
		return raw, int64(raw) >= 0
	case binding.VALUE_TYPE_SIGNED_INT:
		return uint64(low), int32(low) >= 0
	case binding.VALUE_TYPE_UNSIGNED_SHORT:
		short := binary.NativeEndian.Uint16(v.Value[:])
		return uint64(short), short != math.MaxUint16
	}
	return 0, false
}

// measured is a number of the driver in the unit of ours; absent if it was not
// given or is all ones, which stands for "not available".
func measured[T uint32 | uint64](v T, ok bool, unit float64) nvml.Maybe[float64] {
	if !ok || v == ^T(0) {
		return nvml.Maybe[float64]{}
	}
	return nvml.Some(float64(v) * unit)
}

// counted is the same for a number that stays as it is.
func counted[T uint32 | uint64](v T, ok bool) nvml.Maybe[uint64] {
	if !ok || v == ^T(0) {
		return nvml.Maybe[uint64]{}
	}
	return nvml.Some(uint64(v))
}
