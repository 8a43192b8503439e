package detector

import (
	"fmt"
	"testing"
	"time"
)

// busy is the state of a node of 16 GPUs with 50 faults.
func busy(tb testing.TB) *State {
	tb.Helper()
	s, p := &State{}, DefaultPolicy()
	n := uint64(0)
	play := func(e Event) {
		n++
		e.ID, e.Boot, e.Time, e.Mono = fmt.Sprintf("boot-1/%s/%d", e.Source, n), "boot-1", at(float64(n)/100), time.Hour+time.Duration(n)*10*time.Millisecond
		s, _, _ = fold(s, p, e)
	}
	play(Event{Source: SourceDaemon, Kind: KindBoot})
	play(Event{Source: SourceState, Kind: KindDriverLoaded, Fields: map[string]string{"version": "570.195.03", "load": "a"}})
	faults := 0
	for i := range 16 {
		gpu := Device{PCI: fmt.Sprintf("0000:%02x:00.0", i+1), UUID: fmt.Sprintf("GPU-%d", i)}
		play(Event{Source: SourceState, Kind: KindGPUFound, GPU: gpu, Fields: map[string]string{"index": fmt.Sprint(i)}})
		play(Event{Source: SourceState, Kind: KindFresh, GPU: gpu})
		for _, code := range []int{31, 119, 94} {
			play(Event{Source: SourceKernelLog, Kind: KindXid, GPU: gpu, Xid: &Report{Code: code}})
		}
		if i < 2 {
			play(Event{Source: SourceKernelLog, Kind: KindXid, GPU: gpu, Xid: &Report{Code: 95}})
		}
		faults += len(s.GPUs[i].Conditions)
	}
	if faults != 50 {
		tb.Fatalf("%d faults, want 50", faults)
	}
	return s
}

// BenchmarkFold folds one event into the state of a node of 16 GPUs with 50
// faults. The budget is 20 µs.
func BenchmarkFold(b *testing.B) {
	s, p := busy(b), DefaultPolicy()
	gpu := Device{PCI: "0000:08:00.0"}
	for name, e := range map[string]Event{
		"repeated Xid":  {Source: SourceKernelLog, Kind: KindXid, GPU: gpu, Xid: &Report{Code: 119}},
		"new fault":     {Source: SourceKernelLog, Kind: KindXid, GPU: gpu, Xid: &Report{Code: 95}},
		"symptom":       {Source: SourceKernelLog, Kind: KindXid, GPU: gpu, Xid: &Report{Code: 45}},
		"fact":          {Source: SourceState, Kind: KindRecoveryAction, GPU: gpu, Fields: map[string]string{"action": "1"}},
		"nothing of us": {Source: SourceEvents, Kind: KindDriverEvent, GPU: gpu},
	} {
		e.ID, e.Boot, e.Time, e.Mono = "boot-1/bench/1000000", "boot-1", s.Time.Add(time.Second), s.Mono+time.Second
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				fold(s, p, e)
			}
		})
	}
}

// Ten thousand Xids in one second: each is counted, and what is kept does not grow.
func TestStormOfXidsLosesNoneAndKeepsTheStateSmall(t *testing.T) {
	const storm = 10_000
	s, p := busy(t), DefaultPolicy()
	begins := *s
	transitions := 0
	codes := []int{13, 31, 45, 43, 68, 119, 94, 74}
	before := map[int]uint64{}
	for _, x := range s.GPUs[0].Xids {
		before[x.Code] = x.Count
	}
	for i := range storm {
		span := time.Duration(i) * time.Second / storm
		var told []Transition
		s, told, _ = fold(s, p, Event{
			ID: fmt.Sprintf("boot-1/kmsg/%d", storm+i), Source: SourceKernelLog, Kind: KindXid, Boot: "boot-1",
			Time: begins.Time.Add(span), Mono: begins.Mono + span, GPU: Device{PCI: "0000:01:00.0"}, Xid: &Report{Code: codes[i%len(codes)]},
		})
		transitions += len(told)
	}
	g := s.GPUs[0]
	for _, x := range g.Xids {
		if x.Code != 95 && x.Count-before[x.Code] != storm/uint64(len(codes)) {
			t.Errorf("Xid %d is counted %d times, want %d", x.Code, x.Count-before[x.Code], storm/len(codes))
		}
	}
	if s.Seq != begins.Seq+storm {
		t.Errorf("%d events are folded, want %d", s.Seq-begins.Seq, storm)
	}
	if len(g.Conditions) > 8 || len(g.Merging) > len(codes)+4 || len(s.Recent) > keptTransitions || transitions > 10 {
		t.Errorf("%d conditions, %d windows, %d recent, %d transitions", len(g.Conditions), len(g.Merging), len(s.Recent), transitions)
	}
}
