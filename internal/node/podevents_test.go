package node

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/detector"
)

// hold gives a GPU to a pod.
func (w *world) hold(gpu int, uid, pod string) {
	w.Helper()
	c := &detector.Claim{
		UID: uid, Namespace: "team-a", Name: "claim", Pods: []detector.ClaimPod{{Name: pod, UID: "uid-" + pod}},
		Devices: []detector.ClaimDevice{{Name: fmt.Sprintf("gpu-%d", gpu), Device: detector.Device{PCI: pci(gpu)}}},
	}
	for _, kind := range []detector.Kind{detector.KindClaimIntended, detector.KindClaimPrepared} {
		if _, err := w.detector.Submit(w.Context(), detector.Event{Source: detector.SourceDRA, Kind: kind, Claim: c}); err != nil {
			w.Fatal(err)
		}
	}
}

// toldPods are the events about pods, as pod: reason: message.
func (w *world) toldPods() []string {
	var all []string
	for _, e := range w.api.told() {
		if e.InvolvedObject.Kind == "Pod" {
			all = append(all, fmt.Sprintf("%s/%s (%s): %s: %s", e.Namespace, e.InvolvedObject.Name, e.InvolvedObject.UID, e.Reason, e.Message))
		}
	}
	return all
}

func TestPodsThatHoldAGPUAreTold(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(2)
		w.hold(0, "a", "train")
		w.hold(1, "b", "serve")
		w.xid(0, 31)
		w.xid(0, 31)
		w.xid(1, 79)
		pass(3 * time.Second)
		want := []string{
			"team-a/train (uid-train): ApplicationXid: GPU 0 (0000:10:00.0, GPU-0): Xid 31: text: raised by what runs in this pod; the GPU is not at fault",
			"team-a/serve (uid-serve): GPULost: GPU 1 (0000:11:00.0, GPU-1), which this pod uses, is not fit for work: Xid 79; reboot-node",
		}
		if diff := cmp.Diff(want, w.toldPods()); diff != "" {
			t.Errorf("pods were told (-want +got):\n%s", diff)
		}
	})
}

func TestTenantsCannotDelayWhatIsToldOfTheHardware(t *testing.T) {
	inWorld(t, func(w *world) {
		w.begin(2)
		for i := range 100 { // one claim after another, each with an Xid
			uid := fmt.Sprintf("claim-%d", i)
			w.hold(0, uid, fmt.Sprintf("pod-%d", i))
			w.xid(0, 13)
			if _, err := w.detector.Submit(w.Context(), detector.Event{Source: detector.SourceDRA, Kind: detector.KindClaimReleased, Claim: &detector.Claim{UID: uid}}); err != nil {
				t.Fatal(err)
			}
			pass(10 * time.Millisecond)
		}
		if n := len(w.toldPods()); n == 0 || n > podEventsBurst {
			t.Errorf("%d events about pods, want at most %d", n, podEventsBurst)
		}
		w.xid(1, 79)
		pass(3 * time.Second)
		var told bool
		for _, e := range w.api.told() {
			told = told || e.InvolvedObject.Kind == "Node" && e.Reason == "GPULost"
		}
		if !told {
			t.Error("the lost GPU is not told about")
		}
	})
}

func TestNodeIsFencedOnceDevicesAreNot(t *testing.T) {
	inWorld(t, func(w *world) {
		w.fenced.Store(true)
		w.begin(2)
		w.xid(0, 79)
		pass(3 * time.Second)
		w.wantTaints()
		if d := w.api.condition().Status; d != "False" {
			t.Errorf("the condition is %s", d)
		}
		w.fenced.Store(false) // the API server keeps no device taints
		w.output.Look()
		pass(3 * time.Second)
		w.wantTaints(lost)
		w.fenced.Store(true)
		w.output.Look()
		pass(20 * time.Second)
		w.wantTaints()
	})
}

// A restart with a lost GPU: its device is fenced by the daemon before, and the new one
// does not know that yet.
func TestTaintStaysUntilItIsKnownWhetherDevicesAreFenced(t *testing.T) {
	inWorld(t, func(w *world) {
		w.undecided.Store(true)
		w.begin(2)
		w.xid(0, 79)
		pass(5 * time.Second)
		w.wantTaints()
		if d := w.api.condition().Status; d != "False" {
			t.Errorf("the condition is %s", d)
		}
		w.undecided.Store(false) // and nobody says so
		pass(3 * time.Second)
		w.wantTaints(lost)
		w.undecided.Store(true)
		w.fenced.Store(true)
		w.output.Look()
		pass(20 * time.Second)
		w.wantTaints(lost)
	})
}
