package detector

import (
	"testing"

	"gpuvet.dev/nvml"
)

func inFabric(f nvml.Fabric) *nvml.Health {
	return working(func(h *nvml.Health) { h.Fabric = nvml.Some(f) })
}

var registered = nvml.Fabric{State: nvml.FabricCompleted, Health: "healthy", Conditions: nvml.Some([]nvml.FabricCondition{})}

func limited(conditions ...nvml.FabricCondition) nvml.Fabric {
	return nvml.Fabric{State: nvml.FabricCompleted, Conditions: nvml.Some(conditions)}
}

func TestFabricIsJudged(t *testing.T) {
	for _, tt := range []struct {
		name   string
		fabric nvml.Fabric
		want   string // shown after three polls
		status Status
	}{
		{"all is well", registered, "", Healthy},
		{"a state that is not known here", nvml.Fabric{Status: 999}, "", Healthy},
		{"assigned to no partition, as may be meant", limited(nvml.FabricUnassigned), "", Healthy},
		{"not registered yet", nvml.Fabric{State: nvml.FabricInProgress, Status: 999}, "", Healthy},
		{"registered in vain", nvml.Fabric{State: nvml.FabricCompleted, Status: 999}, "FabricRefused raised: its registration with the NVLink fabric failed (status 999)", Unhealthy},
		{"less bandwidth", limited(nvml.FabricDegradedBandwidth), "FabricDegraded raised: its NVLink fabric is limited (degraded-bandwidth)", Degraded},
		{"two things", limited(nvml.FabricRouteUnhealthy, nvml.FabricTooFewLinks), "FabricDegraded raised: its NVLink fabric is limited (route-unhealthy, insufficient-nvlinks)", Degraded},
		{"the driver's summary alone", nvml.Fabric{State: nvml.FabricCompleted, Health: "unhealthy"}, "FabricDegraded raised: its NVLink fabric is limited (unhealthy)", Degraded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is, well := inFabric(tt.fabric), inFabric(registered)
			s := newScript(t)
			s.polls(append([]*nvml.Health{well}, repeated(is, 4)...)...)
			var want []string
			if tt.want != "" {
				want = append(want, gpuA+" "+tt.want)
			}
			s.says(want...)
			s.status(gpuA, tt.status)

			s = newScript(t)
			s.polls(append(append([]*nvml.Health{well}, repeated(is, 4)...), well, well)...)
			s.status(gpuA, Healthy)

			s = newScript(t)
			s.polls(well, is, is, well, is, is, well)
			s.says()
		})
	}
}

func TestGPUThatIsNeverRegisteredIsFencedAfterAWhile(t *testing.T) {
	for _, state := range []nvml.FabricState{nvml.FabricNotStarted, nvml.FabricInProgress} {
		waiting := inFabric(nvml.Fabric{State: state})
		s := newScript(t)
		s.polls(repeated(waiting, 30)...)
		s.says()
		s = newScript(t)
		s.polls(append(repeated(waiting, 29), inFabric(registered), inFabric(registered))...)
		s.says()
		s = newScript(t)
		s.polls(repeated(waiting, 32)...)
		s.says(gpuA + " FabricNotReady raised: it is not registered with its NVLink fabric (" + string(state) + ")")
		s.status(gpuA, Unhealthy)
	}
}

func TestWhatElseIsAmissHidesNoFabricFault(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.gpu(2, gpuA, KindRemapPending, map[string]string{"pending": "true"})
	s.gpu(3, gpuA, KindFabricNotReady, map[string]string{"so": "true"})
	s.rest(302)
	s.status(gpuA, Degraded)
	s.rest(304)
	s.status(gpuA, Unhealthy)
}
