//go:build cgo

package worker

import (
	"encoding/binary"
	"math"

	binding "github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpuvet.dev/nvml"
)

// field names a value by its number and, for one of a link, by the link.
type field struct{ id, scope uint32 }

// values are those that the driver gave. One that is not there is absent.
type values map[field]int64

// fields asks for values that concern the whole GPU.
func (b *batch) fields(ids ...uint32) values {
	wanted := make([]field, len(ids))
	for i, id := range ids {
		wanted[i] = field{id: id}
	}
	return b.scoped(wanted)
}

// scoped asks for many values in one call, which has the driver look them up
// together.
func (b *batch) scoped(wanted []field) values {
	const function = "nvmlDeviceGetFieldValues"
	if b.ended != nil || len(wanted) == 0 || !b.lib.has(function) {
		return nil
	}
	asked := make([]binding.FieldValue, len(wanted))
	for i, f := range wanted {
		// What the library leaves alone is not there.
		asked[i] = binding.FieldValue{FieldId: f.id, ScopeId: f.scope, NvmlReturn: uint32(binding.ERROR_NOT_SUPPORTED)}
	}
	if code := b.device.GetFieldValues(asked); code != binding.SUCCESS {
		b.note(function, code)
		return nil
	}
	found := make(values, len(asked))
	for i, v := range asked {
		if b.note(function, binding.Return(v.NvmlReturn)) {
			if n, ok := number(v); ok {
				found[wanted[i]] = n
			}
		}
	}
	return found
}

// count is the natural number of a field.
func (v values) count(id uint32) nvml.Maybe[uint64] { return v.of(id, 0) }

// of is the natural number of a field with a scope.
func (v values) of(id, scope uint32) nvml.Maybe[uint64] {
	n, ok := v[field{id, scope}]
	if !ok || n < 0 {
		return nvml.Maybe[uint64]{}
	}
	return nvml.Some(uint64(n))
}

// flag is a field that is 1 for yes.
func (v values) flag(id uint32) nvml.Maybe[bool] {
	n := v.count(id)
	return nvml.Maybe[bool]{Value: n.Value != 0, OK: n.OK}
}

// degrees is a field in °C, which may be below zero.
func (v values) degrees(id uint32) nvml.Maybe[float64] {
	n, ok := v[field{id: id}]
	return nvml.Maybe[float64]{Value: float64(n), OK: ok}
}

// number is the value of a field; not ok if it is a sentinel or no whole number.
func number(v binding.FieldValue) (int64, bool) {
	raw := binary.NativeEndian.Uint64(v.Value[:])
	low := binary.NativeEndian.Uint32(v.Value[:])
	switch binding.ValueType(v.ValueType) {
	case binding.VALUE_TYPE_DOUBLE:
		f := math.Float64frombits(raw)
		return int64(f), math.Abs(f) < math.MaxInt64 // NaN is not
	case binding.VALUE_TYPE_UNSIGNED_INT:
		return int64(low), low != math.MaxUint32
	case binding.VALUE_TYPE_UNSIGNED_LONG, binding.VALUE_TYPE_UNSIGNED_LONG_LONG:
		return int64(raw), raw <= math.MaxInt64
	case binding.VALUE_TYPE_SIGNED_LONG_LONG:
		return int64(raw), true
	case binding.VALUE_TYPE_SIGNED_INT:
		return int64(int32(low)), true
	case binding.VALUE_TYPE_UNSIGNED_SHORT:
		short := binary.NativeEndian.Uint16(v.Value[:])
		return int64(short), short != math.MaxUint16
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

// inUnit is a count of the driver in the unit of ours.
func inUnit(n nvml.Maybe[uint64], unit float64) nvml.Maybe[float64] {
	return nvml.Maybe[float64]{Value: float64(n.Value) * unit, OK: n.OK}
}

// small is a number that is at least the least and not above the most; others
// stand for "not available".
func small(n int, ok bool, least, most int) nvml.Maybe[int] {
	if !ok || n < least || n > most {
		return nvml.Maybe[int]{}
	}
	return nvml.Some(n)
}
