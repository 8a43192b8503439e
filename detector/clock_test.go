package detector

import (
	"testing"
	"testing/synctest"
	"time"

	"gpuvet.dev/nvml"
)

// NVML's events are stamped by another process, by the wall clock alone.
func TestWallClockThatIsSetMovesNoQuietTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := running(t, Config{})
		d.Emit(Event{Source: SourceKernelLog, Kind: KindXid, GPU: Device{PCI: gpuA}, Xid: &Report{Code: 94}})
		set := time.Now().Round(0).Add(2 * time.Hour)
		d.Emit(FromDriver(nvml.Event{Type: nvml.EventXid, Xid: 13, PCI: gpuB, Time: set}))
		if g, _ := d.Snapshot().GPU(gpuA); len(g.Conditions) != 1 {
			t.Errorf("%v: a fault that is quiet after an hour ended when the clock was set", g.Conditions)
		}
		time.Sleep(time.Minute)
		d.Emit(FromDriver(nvml.Event{Type: nvml.EventDoubleBitECC, PCI: gpuB, Time: set.Add(time.Minute - time.Second)}))
		if g, _ := d.Snapshot().GPU(gpuB); g.Status != Unhealthy || g.Conditions[0].Mono > time.Hour+time.Minute {
			t.Errorf("a fault of NVML is at %v since boot, one minute after the first", g.Conditions[0].Mono)
		}
	})
}
