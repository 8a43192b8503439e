package detector

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// ledger folds events of claims, and of GPUs, one second apart.
type ledger struct {
	t      *testing.T
	state  *State
	policy *Policy
	n      int
	told   []Transition
}

func newLedger(t *testing.T) *ledger {
	t.Helper()
	l := &ledger{t: t, state: &State{}, policy: DefaultPolicy()}
	l.fold(Event{Source: SourceDaemon, Kind: KindBoot})
	for _, pci := range []string{"0000:3b:00.0", "0000:5e:00.0"} {
		l.fold(Event{Source: SourceState, Kind: KindGPUFound, GPU: Device{PCI: pci, UUID: "GPU-" + pci}})
		l.fold(Event{Source: SourceState, Kind: KindFresh, GPU: Device{PCI: pci}})
	}
	return l
}

func (l *ledger) fold(e Event) *Snapshot {
	l.t.Helper()
	l.n++
	e.Boot = "boot-1"
	e.ID = fmt.Sprintf("%s/%s/%d", e.Boot, e.Source, l.n)
	e.Time = time.Date(2026, 1, 2, 3, 4, l.n, 0, time.UTC)
	e.Mono = time.Duration(l.n) * time.Second
	next, transitions, _ := fold(l.state, l.policy, e)
	l.state, l.told = next, transitions
	return view(next)
}

func claimOf(uid, pod string, devices ...ClaimDevice) *Claim {
	return &Claim{
		UID: uid, Namespace: "team-a", Name: "claim-" + uid,
		Pods: []ClaimPod{{Name: pod, UID: "uid-of-" + pod}}, Devices: devices,
	}
}

func wholeGPU(pci string) ClaimDevice {
	return ClaimDevice{Name: "gpu-" + pci, Requests: []string{"gpu"}, Device: Device{PCI: pci}}
}

func part(pci string, gi int) ClaimDevice {
	return ClaimDevice{Name: fmt.Sprintf("gpu-%s-mig-%d", pci, gi), Requests: []string{"gpu"}, Device: Device{PCI: pci, GPUInstance: &gi, ComputeInstance: new(0)}}
}

func (l *ledger) claim(kind Kind, c *Claim) *Snapshot {
	l.t.Helper()
	return l.fold(Event{Source: SourceDRA, Kind: kind, Claim: c})
}

const slot, otherSlot = "0000:3b:00.0", "0000:5e:00.0"

func TestClaimIsHeldFromIntentToRelease(t *testing.T) {
	l := newLedger(t)
	c := claimOf("a", "train", wholeGPU(slot))
	s := l.claim(KindClaimIntended, c)
	if got, ok := s.Claim("a"); !ok || got.Prepared || got.Boot != "boot-1" || got.Since.IsZero() {
		t.Fatalf("after the intent: %+v, %v", got, ok)
	}
	if got, _ := l.claim(KindClaimPrepared, &Claim{UID: "a"}).Claim("a"); !got.Prepared {
		t.Fatalf("after preparing: %+v", got)
	}
	if got, _ := l.claim(KindClaimIntended, c).Claim("a"); !got.Prepared {
		t.Errorf("a second intent under the same boot undoes the preparing: %+v", got)
	}
	s = l.claim(KindClaimReleased, &Claim{UID: "a"})
	if got, ok := s.Claim("a"); ok {
		t.Errorf("after the release: %+v", got)
	}
}

func TestDeviceIsHeldByOneClaim(t *testing.T) {
	for name, c := range map[string]struct {
		first, second ClaimDevice
		against       bool
	}{
		"the same GPU":                  {wholeGPU(slot), wholeGPU(slot), true},
		"another GPU":                   {wholeGPU(slot), wholeGPU(otherSlot), false},
		"a part of a GPU that is held":  {wholeGPU(slot), part(slot, 1), true},
		"a GPU of which a part is held": {part(slot, 1), wholeGPU(slot), true},
		"another part":                  {part(slot, 1), part(slot, 2), false},
		"the same part":                 {part(slot, 1), part(slot, 1), true},
		"watched by an administrator":   {wholeGPU(slot), func() ClaimDevice { d := wholeGPU(slot); d.Admin = true; return d }(), false},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger(t)
			l.claim(KindClaimIntended, claimOf("a", "first", c.first))
			second := claimOf("b", "second", c.second)
			before := l.state
			err := view(before).Against(second)
			_, taken := l.claim(KindClaimIntended, second).Claim("b")
			if (err != nil) != c.against || taken == c.against {
				t.Errorf("taken %v, against it: %v", taken, err)
			}
			if err != nil && !strings.Contains(err.Error(), "team-a/claim-a") {
				t.Errorf("%q does not name the claim that holds the device", err)
			}
		})
	}
}

func TestLateCallIsToldFromTheNextPod(t *testing.T) {
	l := newLedger(t)
	c := claimOf("a", "first", wholeGPU(slot))
	l.claim(KindClaimIntended, c)
	l.claim(KindClaimPrepared, c)
	l.claim(KindClaimReleased, c)
	if _, taken := l.claim(KindClaimIntended, c).Claim("a"); taken {
		t.Error("the same pod's claim was taken again a second after its release")
	}
	next := claimOf("a", "second", wholeGPU(slot))
	if _, taken := l.claim(KindClaimIntended, next).Claim("a"); !taken {
		t.Errorf("the next pod's was not: %v", view(l.state).Against(next))
	}
	l.claim(KindClaimReleased, next)
	l.n += 61
	if _, taken := l.claim(KindClaimIntended, next).Claim("a"); !taken {
		t.Error("a minute later it was not taken")
	}
}

// Both pods had the claim reserved when it was prepared for the first one, which had
// ended before the node got to the second one.
func TestPodThatComesToASharedClaimLateGetsIt(t *testing.T) {
	l := newLedger(t)
	both := claimOf("a", "first", wholeGPU(slot))
	both.Pods = append(both.Pods, ClaimPod{Name: "second", UID: "uid-second"})
	l.claim(KindClaimIntended, both)
	l.claim(KindClaimPrepared, both)
	l.claim(KindClaimReleased, both)
	if _, taken := l.claim(KindClaimIntended, both).Claim("a"); taken {
		t.Error("it was taken while nobody had said that the first pod has ended")
	}
	left := claimOf("a", "second", wholeGPU(slot))
	left.Pods = both.Pods[1:]
	if _, taken := l.claim(KindClaimIntended, left).Claim("a"); !taken {
		t.Errorf("the second pod's was not taken: %v", view(l.state).Against(left))
	}
}

func TestPreparingThatFailedMayBeTriedAgain(t *testing.T) {
	l := newLedger(t)
	c := claimOf("a", "first", wholeGPU(slot))
	l.claim(KindClaimIntended, c)
	s := l.fold(Event{Source: SourceDRA, Kind: KindClaimReleased, Claim: c, Fields: map[string]string{"undone": "true"}})
	if _, held := s.Claim("a"); held || len(s.Released) != 0 {
		t.Errorf("held %v, remembered as released: %v", held, s.Released)
	}
	if _, taken := l.claim(KindClaimIntended, c).Claim("a"); !taken {
		t.Errorf("the same pod's next try was not taken: %v", view(l.state).Against(c))
	}
}

func TestRefusalLastsAsLongAsTheFault(t *testing.T) {
	l := newLedger(t)
	refused := Event{
		Source: SourceDRA, Kind: KindClaimRefused, GPU: Device{PCI: slot}, Claim: claimOf("a", "train"),
		Fields: map[string]string{"device": "gpu-0", "reason": string(GPULost), "action": "reboot-node"},
	}
	if s := l.fold(refused); len(s.GPUs[0].Refusals) != 0 {
		t.Errorf("refused for a fault that does not stand: %+v", s.GPUs[0].Refusals)
	}
	l.fold(Event{Source: SourceKernelLog, Kind: KindXid, GPU: Device{PCI: slot}, Xid: &Report{Code: 79}})
	s := l.fold(refused)
	want := []Refusal{{Reason: GPULost, Since: s.Time}}
	if diff := cmp.Diff(want, s.GPUs[0].Refusals); diff != "" {
		t.Fatalf("refusals (-want +got):\n%s", diff)
	}
	if len(l.told) != 1 || l.told[0].Condition != NotedRefused || l.told[0].Holders[0].Pod != "team-a/train" {
		t.Errorf("told %+v", l.told)
	}
	if s := l.fold(refused); len(s.GPUs[0].Refusals) != 1 {
		t.Errorf("a second time makes %+v", s.GPUs[0].Refusals)
	}
	l.fold(Event{Source: SourceHand, Kind: KindClear, GPU: Device{PCI: slot}, Fields: map[string]string{"author": "test"}})
	s = l.fold(Event{Source: SourceState, Kind: KindFresh, GPU: Device{PCI: slot}})
	if len(s.GPUs[0].Conditions) == 0 && len(s.GPUs[0].Refusals) != 0 {
		t.Errorf("the fault is over, and the refusal stands: %+v", s.GPUs[0].Refusals)
	}
	if len(s.GPUs[0].Conditions) != 0 {
		t.Fatalf("the fault stands: %+v", s.GPUs[0].Conditions)
	}
}

func TestClaimThatHoldsTheGPUIsBlamed(t *testing.T) {
	l := newLedger(t)
	for _, c := range []*Claim{claimOf("a", "train", wholeGPU(slot)), claimOf("b", "serve", wholeGPU(otherSlot))} {
		l.claim(KindClaimIntended, c)
		l.claim(KindClaimPrepared, c)
	}
	xid := Event{Source: SourceKernelLog, Kind: KindXid, GPU: Device{PCI: slot}, Xid: &Report{Code: 13, Text: "Graphics Exception"}}
	s := l.fold(xid)
	var blamed []Transition
	for _, t := range l.told {
		if t.Condition == NotedApplication {
			blamed = append(blamed, t)
		}
	}
	want := []Holder{{Claim: "team-a/claim-a", Pod: "team-a/train", PodUID: "uid-of-train", Tenant: "team-a"}}
	if len(blamed) != 1 {
		t.Fatalf("told %+v", l.told)
	}
	if diff := cmp.Diff(want, blamed[0].Holders); diff != "" {
		t.Errorf("blamed (-want +got):\n%s", diff)
	}
	if got := s.GPUs[0].Status; got != Healthy {
		t.Errorf("the GPU is %s", got)
	}
	l.fold(xid)
	for _, again := range l.told {
		if again.Condition == NotedApplication {
			t.Errorf("told again: %+v", again)
		}
	}
}

func TestHardwareFaultNamesThoseWhoHoldTheGPU(t *testing.T) {
	l := newLedger(t)
	for _, c := range []*Claim{claimOf("a", "train", part(slot, 1)), claimOf("b", "serve", part(slot, 2)), claimOf("c", "other", wholeGPU(otherSlot))} {
		l.claim(KindClaimIntended, c)
		l.claim(KindClaimPrepared, c)
	}
	l.fold(Event{Source: SourceKernelLog, Kind: KindXid, GPU: Device{PCI: slot}, Xid: &Report{Code: 79}})
	var pods []string
	for _, h := range l.told[0].Holders {
		pods = append(pods, h.Pod)
	}
	if diff := cmp.Diff([]string{"team-a/train", "team-a/serve"}, pods); diff != "" {
		t.Errorf("holders (-want +got):\n%s", diff)
	}
}

// The kernel log's backlog may be read when the device is another claim's already.
func TestClaimIsNotBlamedForWhatCameBeforeIt(t *testing.T) {
	l := newLedger(t)
	c := claimOf("b", "second", wholeGPU(slot))
	l.claim(KindClaimIntended, c)
	l.claim(KindClaimPrepared, c)
	before := time.Duration(l.n-2) * time.Second
	e := Event{
		ID: "boot-1/kmsg/1", Source: SourceKernelLog, Kind: KindXid, Boot: "boot-1", Mono: before, Time: time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC).Add(before),
		GPU: Device{PCI: slot}, Xid: &Report{Code: 31},
	}
	s, _, _ := fold(l.state, l.policy, e)
	i, _ := s.gpu(slot)
	if got, _ := view(s).Claim("b"); len(got.Xids) != 0 || len(s.GPUs[i].Tenants) != 0 {
		t.Errorf("an Xid of before the claim is put down to it: %v, %v", got.Xids, s.GPUs[i].Tenants)
	}
}
