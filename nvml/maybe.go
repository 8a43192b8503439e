package nvml

import "encoding/json"

// Maybe is a value that the driver may be unable to give. Its zero value is
// "absent", and stands in JSON as null.
type Maybe[T any] struct {
	Value T
	OK    bool
}

// Some is a value that is there.
func Some[T any](v T) Maybe[T] { return Maybe[T]{Value: v, OK: true} }

// MarshalJSON implements [json.Marshaler].
func (m Maybe[T]) MarshalJSON() ([]byte, error) {
	if !m.OK {
		return []byte("null"), nil
	}
	return json.Marshal(m.Value)
}

// UnmarshalJSON implements [json.Unmarshaler].
func (m *Maybe[T]) UnmarshalJSON(data []byte) error {
	*m = Maybe[T]{}
	if string(data) == "null" {
		return nil
	}
	m.OK = true
	return json.Unmarshal(data, &m.Value)
}
