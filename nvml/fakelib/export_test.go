package fakelib

import (
	"reflect"

	"gpuvet.dev/nvml/fake"
)

// Shown is how many states of the driver were shown.
func (m *Machine) Shown() uint64 { return m.shown.Load() }

// PageTypes are the types whose layout C has too, by their names there.
func PageTypes() map[string]reflect.Type {
	return map[string]reflect.Type{
		"link": reflect.TypeFor[link](), "profile": reflect.TypeFor[profile](), "instance": reflect.TypeFor[instance](),
		"process": reflect.TypeFor[process](), "field": reflect.TypeFor[field](), "sample": reflect.TypeFor[sample](),
		"fabric": reflect.TypeFor[fabric](), "gpu": reflect.TypeFor[gpu](), "event": reflect.TypeFor[event](),
		"excluded": reflect.TypeFor[excluded](), "page": reflect.TypeFor[page](),
	}
}

// Show shows one state, as Run does.
func (m *Machine) Show(s fake.State) error { return m.show(s) }
