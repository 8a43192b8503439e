package node

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"gpuvet.dev/detector"
)

func TestFaultAndItsEndAreToldAboutTheNode(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(2)
		at := metav1.Now().Rfc3339Copy()
		w.xid(1, 79)
		w.xid(0, 31) // an application's
		pass(3 * time.Second)
		w.clear(1)
		pass(3 * time.Second)
		common := corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Namespace: "default"},
			InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: nodeName, UID: nodeName},
			Count:          1, Source: corev1.EventSource{Component: "gpuvet.dev", Host: nodeName},
			ReportingController: "gpuvet.dev", ReportingInstance: nodeName,
		}
		begun, over := common, common
		begun.Type, begun.Reason = "Warning", "GPULost"
		begun.Message = "GPU 1 (0000:11:00.0, GPU-1) gets no new work: Xid 79; reboot-node"
		begun.FirstTimestamp, begun.LastTimestamp = at, at
		over.Type, over.Reason = "Normal", "GPULostCleared"
		over.Message = "GPU 1 (0000:11:00.0, GPU-1): GPULost is over: by hand"
		over.FirstTimestamp = metav1.NewTime(at.Add(3 * time.Second))
		over.LastTimestamp = over.FirstTimestamp
		got := w.api.told()
		if diff := cmp.Diff([]corev1.Event{begun, over}, got, cmpopts.IgnoreFields(metav1.ObjectMeta{}, "Name"), cmpopts.IgnoreFields(corev1.Event{}, "TypeMeta")); diff != "" {
			t.Errorf("events (-want +got)\n%s", diff)
		}
		pass(10 * time.Minute)
		if n := w.api.calls["event"]; n != 2 {
			t.Errorf("%d calls, want two", n)
		}
	})
}

func TestCrashBeforeTheCursorIsSavedMakesNoSecondEvent(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(1)
		w.xid(0, 79)
		pass(3 * time.Second)
		w.kill()
		w.cursor = 0 // as it was saved
		w.start()
		w.look(1)
		pass(time.Minute)
		if n := len(w.api.told()); n != 1 || w.api.calls["event"] != 2 {
			t.Errorf("%d events after %d calls, want one that was told twice", n, w.api.calls["event"])
		}
		if w.cursor == 0 {
			t.Error("the cursor stays: what exists already is not taken as told")
		}
	})
}

func TestCrashBetweenTaintAndEventStillTellsIt(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(1)
		w.api.set(func() { w.api.refuse = onlyEvents(403) })
		w.xid(0, 79)
		pass(3 * time.Second)
		w.wantTaints(lost)
		w.kill()
		w.api.set(func() { w.api.refuse = nil })
		w.start()
		w.look(1)
		pass(time.Minute)
		if n := len(w.api.told()); n != 1 {
			t.Errorf("%d events, want one", n)
		}
	})
}

func TestRefusedEventKeepsNoneWaiting(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(2)
		w.api.set(func() { w.api.refuse = onlyEvents(422) })
		w.xid(0, 79)
		pass(3 * time.Second)
		w.api.set(func() { w.api.refuse = nil })
		w.xid(1, 79)
		pass(3 * time.Second)
		if got := w.api.told(); len(got) != 1 {
			t.Errorf("%d events, want the second alone", len(got))
		}
	})
}

func onlyEvents(status int) func(string) int {
	return func(call string) int {
		if call == "event" {
			return status
		}
		return 0
	}
}

func TestFreshInstallTellsWhatStandsAndNotTheWholePast(t *testing.T) {
	inWorld(t, func(w *world) {
		w.start()
		w.silent[1] = true
		w.look(2)
		// The kernel log of a month: both GPUs fail, one is repaired.
		month := time.Now().Add(-30 * 24 * time.Hour)
		for i := range 2 {
			w.detector.Emit(detector.Event{
				Source: detector.SourceKernelLog, Kind: detector.KindXid, Time: month,
				GPU: detector.Device{PCI: pci(i)}, Xid: &detector.Report{Code: 79},
			})
		}
		w.detector.Emit(detector.Event{Source: detector.SourceHand, Kind: detector.KindClear, Time: month.Add(time.Hour), GPU: detector.Device{PCI: pci(0)}})
		pass(time.Minute)
		got := w.api.told()
		if len(got) != 1 || got[0].Message != "GPU 1 (0000:11:00.0, GPU-1) gets no new work: Xid 79; reboot-node" {
			t.Errorf("events are %+v, want that of GPU 1 alone", got)
		}
		if w.cursor == 0 {
			t.Error("the past is read again and again")
		}
	})
}

func TestFlappingGPUMakesNoFloodOfEvents(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(1)
		for range 300 { // 10 minutes
			w.xid(0, 79)
			pass(time.Second)
			w.clear(0)
			pass(time.Second)
		}
		if n := len(w.api.told()); n > 25+60+1 {
			t.Errorf("%d events in 10 min, want at most 6 per minute and a burst", n)
		}
	})
}
