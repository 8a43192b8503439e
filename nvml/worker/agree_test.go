//go:build cgo

package worker_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
	"gpuvet.dev/nvml/wire"
)

// everything gives every fact of health a value of its own.
const everything = `
- {at: 0s, gpu: 0, recovery: gpu-reset}
- {at: 0s, gpu: 1, recovery: drain-and-reset}
- {at: 0s, gpu: all, ecc: {corrected: 3, uncorrected: 2, location: sram}}
- {at: 0s, gpu: all, ecc: {corrected: 5, uncorrected: 4}}
- {at: 0s, gpu: 0, eccMode: {current: true, pending: false}}
- {at: 0s, gpu: all, sram: {thresholdExceeded: true, uniqueUncorrected: 7}}
- {at: 0s, gpu: all, rowsRemapped: {correctable: 8, uncorrectable: 9}}
- {at: 0s, gpu: all, remapPending: true}
- {at: 0s, gpu: all, remapFailed: true}
- {at: 0s, gpu: 0, rowBanks: {max: 11, high: 12, partial: 13, low: 14, none: 15}}
- {at: 0s, gpu: all, retiredPages: {corrected: 16, uncorrected: 17, pending: true}}
- {at: 0s, gpu: all, performanceState: 8}
- {at: 0s, gpu: 1, performanceState: null}
- {at: 0s, gpu: all, set: {temperature: 91, pcieReplays: 18, utilization: 0.5}}
- {at: 0s, gpu: all, pcie: {generation: 1, width: 4}}
- {at: 0s, gpu: all, pcieMax: {generation: 3, width: 8}}
- {at: 0s, gpu: all, pcieErrors: {recoveries: 19, correctable: 20, nonFatal: 21, fatal: 22, unsupportedRequests: 23}}
- {at: 0s, gpu: all, nvlink: {link: 1, state: inactive, recoveries: 24, replays: 25, crcErrors: 26, crcDataErrors: 27, receiveErrors: 28,
    integrityErrors: 29, transmitDiscards: 30, recoveriesFailed: 31, effectiveErrors: 32, symbolErrors: 33}}
- {at: 0s, gpu: all, nvlink: {link: 7, state: sleep, crcDataErrors: 34}}
- {at: 0s, gpu: all, nvlink: {link: 11, state: traffic-disabled, replays: 35}}
- {at: 0s, gpu: 0, migPending: true}
- {at: 0s, gpu: 1, mig: []}
- {at: 0s, gpu: 1, migPending: false}
- {at: 0s, gpu: 0, persistence: false}
`

const ofFabric = `
- {at: 0s, gpu: 0, fabric: {state: completed, status: timeout, clique: 36, summary: limited-capacity, unhealthy: [degraded-bandwidth,
    route-recovery, route-unhealthy, access-timeout, incompatible-firmware, partition-unassigned, manager-disconnected]}}
- {at: 0s, gpu: 1, fabric: {state: in-progress, unhealthy: [invalid-gpu-state]}}
`

// One script has two faces, and both tell the same of every fact of health.
func TestBothFacesTellTheSameHealth(t *testing.T) {
	told := map[string]bool{}
	for profile, more := range map[string]string{"a100": "", "h100": ofFabric, "b200": ofFabric} {
		t.Run(profile, func(t *testing.T) {
			s, err := fake.Decode("everything.yaml", fmt.Appendf(nil, "gpus: {count: 2, profile: %s}\nstart: {wave: 0}\ntimeline:%s%s", profile, everything, more))
			if err != nil {
				t.Fatal(err)
			}
			m := running(t, s, s.Timeline...)
			// Its times stand still when they are compared.
			const all = fake.ThrottleReasons(0x7fe)
			for gpu := range m.addresses {
				m.apply(t, gpu, all)
			}
			reasons := m.driver.State().GPUs[0].Health.ClockReasons.Value
			c := opened(t, m)
			eventually(t, "reasons show", func() bool {
				return cmp.Equal(c.ask(wire.AskHealth, m.addresses[0]).Health.ClockReasons.Value, reasons)
			})
			for gpu := range m.addresses {
				m.apply(t, gpu, fake.ThrottleReasons(0x80))
				m.apply(t, gpu, fake.ThrottleReasons(0))
			}
			order := cmpopts.SortSlices(func(a, b nvml.ECCCount) bool { return a.Location < b.Location })
			for _, pci := range m.addresses {
				var diff string
				eventually(t, "both tell the same: "+pci, func() bool {
					want, err := m.driver.Health(t.Context(), pci)
					if err != nil {
						t.Fatal(err)
					}
					got := *c.ask(wire.AskHealth, pci).Health
					diff = cmp.Diff(want, got, cmpopts.IgnoreFields(nvml.Health{}, "Time"), order)
					list(reflect.ValueOf(got), "", told)
					return diff == "" || t.Failed()
				})
				if diff != "" {
					t.Errorf("%s (-driver +worker):\n%s", pci, diff)
				}
			}
		})
	}
	told["ClockReasons"] = true // compared above
	var missing []string
	for path := range pathsOf(reflect.TypeFor[nvml.Health](), "") {
		if !told[path] {
			missing = append(missing, path)
		}
	}
	slices.Sort(missing)
	if len(missing) > 0 {
		t.Errorf("no script gives these a value: %s", strings.Join(missing, ", "))
	}
}

// list notes the places of a value that are not zero, by the names of fields.
func list(v reflect.Value, path string, told map[string]bool) {
	switch {
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			list(v.Field(i), join(path, v.Type().Field(i)), told)
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			list(v.Index(i), path, told)
		}
	default:
		told[path] = told[path] || !v.IsZero() && (v.Kind() != reflect.Map || v.Len() > 0)
	}
}

// pathsOf are the places that a value can have.
func pathsOf(t reflect.Type, path string) map[string]bool {
	all := map[string]bool{}
	switch {
	case t == reflect.TypeFor[time.Time]():
	case t.Kind() == reflect.Struct:
		for field := range t.Fields() {
			maps.Copy(all, pathsOf(field.Type, join(path, field)))
		}
	case t.Kind() == reflect.Slice:
		return pathsOf(t.Elem(), path)
	default:
		all[path] = true
	}
	return all
}

// join leaves out what belongs to being absent.
func join(path string, field reflect.StructField) string {
	if field.Name == "Value" {
		return path
	}
	return strings.TrimPrefix(path+"."+field.Name, ".")
}
