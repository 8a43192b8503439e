package detector

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/nvml"
)

func (s *script) clears(seconds float64, pci string, fields map[string]string) {
	s.t.Helper()
	s.fold(Event{Source: SourceHand, Kind: KindClear, Time: at(seconds), GPU: Device{PCI: pci}, Fields: fields})
}

func (s *script) addresses() []string {
	var list []string
	for _, g := range s.state.GPUs {
		list = append(list, g.PCI)
	}
	return list
}

func TestGPUThatSitsInAnotherSlotNowIsForgottenByHand(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuB, 79, "GPU has fallen off the bus.")
	s.start(100, "boot-2")
	s.fold(Event{Source: SourceState, Kind: KindDriverLoaded, Time: at(101), Fields: map[string]string{"version": "570.195.03", "load": "b"}})
	moved := "0000:f1:00.0"
	for i, gpu := range []Device{{PCI: gpuA, UUID: "GPU-" + gpuA}, {PCI: moved, UUID: "GPU-" + gpuB}} {
		s.fold(Event{Source: SourceState, Kind: KindGPUFound, Time: at(102), GPU: gpu, Fields: map[string]string{"index": []string{"0", "1"}[i]}})
		s.well(102, gpu.PCI)
	}
	s.status(gpuB, Unhealthy)
	s.told = nil
	s.clears(103, gpuB, map[string]string{"author": "jo"})
	s.says(gpuB + " GPULost cleared: by hand (jo)")
	if got := s.addresses(); !slices.Equal(got, []string{gpuA, moved}) {
		t.Errorf("left are %v", got)
	}
	s.status(moved, Healthy)
}

func TestGPUThatIsGoneIsForgottenWithItsLastFault(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuB, 63, "")
	s.xid(2, gpuB, 74, "NVLink")
	s.gpu(3, gpuB, KindGPUMissing, nil)
	s.told = nil
	s.clears(4, gpuB, map[string]string{"reason": "LinkFault"})
	s.says(gpuB + " LinkFault cleared: by hand")
	s.clears(5, gpuB, map[string]string{"reason": "GPULost", "by": ByAnnotation, "author": "kubectl"})
	s.says(gpuB + " GPULost cleared: by the node's annotation (kubectl)")
	if got := s.addresses(); !slices.Equal(got, []string{gpuA}) {
		t.Errorf("left are %v", got)
	}
}

// Nobody can tell a GPU that was taken out while there is no driver to list it.
func TestGPUIsNotForgottenWhileTheDriverIsAway(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.gpu(3, gpuB, KindGPUMissing, nil)
	s.fold(Event{Source: SourceState, Kind: KindDriverMissing, Time: at(4), Fields: map[string]string{"cause": "none"}})
	s.clears(5, gpuB, nil)
	s.status(gpuB, Unhealthy)
}

func TestGPUIsFoundAsPeopleNameIt(t *testing.T) {
	index := 1
	s := &Snapshot{Driver: DriverState{Asked: true}, GPUs: []GPUView{{PCI: gpuA, UUID: "GPU-a"}, {PCI: gpuB, UUID: "GPU-b", Index: &index}}}
	for _, name := range []string{"1", gpuB, strings.ToUpper(gpuB), "gpu-B"} {
		if got, err := s.Find(name); err != nil || got != (Device{PCI: gpuB, UUID: "GPU-b"}) {
			t.Errorf("%s is %+v, %v", name, got, err)
		}
	}
	const mig = "MIG-b-1"
	s.GPUs[1].Instances = []nvml.Instance{{GPUInstance: 1, UUID: mig}}
	if _, err := s.Find(mig); err == nil || err.Error() != `"`+mig+`" is a MIG device of GPU `+gpuB+`: expected the whole GPU` {
		t.Errorf("a MIG device: %v", err)
	}
	if got, err := s.Find("node"); err != nil || got != (Device{}) {
		t.Errorf("node is %+v, %v", got, err)
	}
	for n, want := range map[int]string{
		2: `"7" is none of the GPUs of this node: it has 2 GPUs, ` + gpuA + ` to ` + gpuB + `; expected a PCI address (0000:3b:00.0), a UUID (GPU-...) or an index (0)`,
		1: `"7" is none of the GPUs of this node: it has 1 GPU, ` + gpuA + `; expected a PCI address (0000:3b:00.0), a UUID (GPU-...) or an index (0)`,
		0: `"7" is none of the GPUs of this node: it has none at present`,
	} {
		less := *s
		less.GPUs = s.GPUs[:n]
		if _, err := less.Find("7"); err == nil || err.Error() != want {
			t.Errorf("of %d: %v, want %s", n, err, want)
		}
	}
	if _, err := (&Snapshot{}).Find("0"); err == nil || !strings.HasSuffix(err.Error(), "they have not been looked for yet") {
		t.Errorf("before the first look: %v", err)
	}
}

func TestLengthOfIgnoringAndReasonAreReadStrictly(t *testing.T) {
	for _, good := range []string{"1m", "90m", "720h"} {
		if _, err := ParseIgnore(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "59s", "721h", "-1h", "24", "soon"} {
		if _, err := ParseIgnore(bad); err == nil || !strings.Contains(err.Error(), "expected a duration from 1m to 720h") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if got, err := ParseReason("LinkFault"); got != LinkFault || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := ParseReason("linkfault"); err == nil || !strings.Contains(err.Error(), `"linkfault" is none, expected one of ApplicationFault, `) {
		t.Error(err)
	}
}

func TestAnnotationsAreHandledEachForItself(t *testing.T) {
	s := newScript(t)
	handled := func(by, value, cause string) {
		s.fold(Event{Source: SourceNode, Kind: KindHandled, Time: at(9), Fields: map[string]string{"by": by, "value": value, "cause": cause}})
	}
	handled(ByClear, "3 GPULosst", "no such reason")
	handled(ByIgnore, "3 LinkFault for 24h", "")
	want := Requests{
		Handled: map[string]string{ByClear: "3 GPULosst", ByIgnore: "3 LinkFault for 24h"},
		Refused: map[string]string{ByClear: "no such reason"},
	}
	if diff := cmp.Diff(want, view(s.state).Requests); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	handled(ByClear, "", "")
	if r := s.state.Requests; r.Handled[ByClear] != "" || len(r.Refused) > 0 {
		t.Errorf("requests after the value was taken away: %+v", r)
	}
}

func TestWhatIsIgnoredSaysWhetherTheGPUHasIt(t *testing.T) {
	until := at(60)
	g := GPUView{
		Ignored:  []Ignored{{Reason: GPULost, Until: until, By: ByHand}, {Reason: LinkFault, Until: until, By: ByAnnotation, Author: "jo"}},
		Unheeded: []Condition{{Reason: LinkFault, Cause: "Xid 74"}},
	}
	want := []string{
		"GPULost ignored by hand until 2026-11-21T12:01:00Z",
		"LinkFault ignored by the node's annotation (jo) until 2026-11-21T12:01:00Z; the GPU has it: Xid 74",
	}
	if diff := cmp.Diff(want, g.Ignoring()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
