package detector

import (
	"fmt"
	"testing"
	"time"
)

func (s *script) tenant(seconds float64, pod string, code int) {
	s.t.Helper()
	s.fold(Event{
		Source: SourceKernelLog, Kind: KindXid, Time: at(seconds), GPU: Device{PCI: gpuA},
		Xid: &Report{Code: code}, Holder: &Holder{Pod: pod},
	})
}

func TestSameApplicationFaultOfThreeTenantsMakesAGPUSuspect(t *testing.T) {
	const hour = 3600
	suspected := gpuA + " SuspectedByTenants raised: Xid 31 in 3 namespaces within 24h0m0s"
	for _, tt := range []struct {
		name string
		play func(*script)
		is   Status
	}{
		{"three namespaces", func(s *script) { s.tenant(2, "a/x", 31); s.tenant(hour, "b/x", 31); s.tenant(23*hour, "c/x", 31) }, Degraded},
		{"one namespace, many pods", func(s *script) {
			for i := range 50 {
				s.tenant(float64(i), fmt.Sprintf("a/x-%d", i), 31)
			}
		}, Healthy},
		{"three codes", func(s *script) { s.tenant(2, "a/x", 31); s.tenant(3, "b/x", 13); s.tenant(4, "c/x", 68) }, Healthy},
		{"over two days", func(s *script) { s.tenant(2, "a/x", 31); s.tenant(3, "b/x", 31); s.tenant(25*hour, "c/x", 31) }, Healthy},
		{"nobody known", func(s *script) { s.tenant(2, "", 31); s.tenant(3, "b/x", 31); s.tenant(25, "c/x", 31) }, Healthy},
		{"with a restart and a boot between", func(s *script) {
			s.tenant(2, "a/x", 31)
			s.start(10, "boot-1")
			s.tenant(11, "b/x", 31)
			s.start(100, "boot-2")
			s.driver(101, "c")
			s.tenant(102, "c/x", 31)
		}, Degraded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t)
			s.driver(1, "a")
			tt.play(s)
			s.status(gpuA, tt.is)
			for _, c := range s.state.GPUs[0].Conditions {
				if c.Effect.Fences() {
					t.Errorf("fenced: %+v", c)
				}
			}
			said := 0
			for _, told := range s.told {
				if told == suspected {
					said++
				}
			}
			if want := map[Status]int{Degraded: 1}[tt.is]; said != want {
				t.Errorf("told %d times, want %d: %q", said, want, s.told)
			}
		})
	}
}

func TestNoTenantGrowsWhatIsRemembered(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	for i := range 2000 {
		s.tenant(2, fmt.Sprintf("ns-%d/x", i), []int{13, 31, 68, 69, 80}[i%5])
	}
	if n := len(s.state.GPUs[0].Tenants); n > 5*DefaultPolicy().Suspicion.Tenants {
		t.Errorf("%d signs are remembered", n)
	}
}

// The history has the first sign of each tenant, or a replay could not find the
// suspicion.
func TestSignsOfEachTenantAreRecordedAndTheirMemoryIsBounded(t *testing.T) {
	r := repeats{}
	swallowed := func(tenant string, gi *int) bool {
		e := Event{
			Kind: KindXid, Mono: time.Hour, GPU: Device{PCI: gpuA, GPUInstance: gi}, Xid: &Report{Code: 31}, Holder: &Holder{Pod: tenant + "/x"},
		}
		return r.swallow(&e, &Entry{})
	}
	if swallowed("a", nil) || swallowed("b", nil) || swallowed("b", new(1)) || !swallowed("b", nil) {
		t.Error("want the first of each tenant and instance recorded, and no repeat")
	}
	for i := range 3 * maxRepeats {
		swallowed(fmt.Sprint(i), nil)
	}
	if len(r) > maxRepeats {
		t.Errorf("%d tenants are remembered", len(r))
	}
}
