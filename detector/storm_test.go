package detector

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/nvml"
)

// replayed is what the records of a trail fold to.
func replayed(t *testing.T, store *disk) *Snapshot {
	t.Helper()
	state, policy := &State{}, DefaultPolicy()
	for e, err := range recorded(store.records) {
		if err != nil {
			t.Fatal(err)
		}
		state, _, _ = fold(state, policy, e)
		policy = DefaultPolicy().inForce(state)
	}
	return view(state)
}

// burst emits three reports of an Xid of a GPU, a tenth of a second apart.
func burst(d *Detector, pci string, code, n int) {
	for i := range 3 {
		e := lost(pci, n+i)
		e.Xid = &Report{Code: code}
		d.Emit(e)
		time.Sleep(100 * time.Millisecond)
	}
}

// The record of repeats is written when they are over: what has changed meanwhile
// was not so for them.
func TestRepeatsStandBeforeWhatFollowedThem(t *testing.T) {
	t.Run("another tenant's claim", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store := &disk{}
			d, ctx := running(t, Config{Trail: store, Store: store})
			claim := func(kind Kind, uid string) {
				t.Helper()
				if _, err := d.Submit(ctx, Event{Source: SourceDRA, Kind: kind, Claim: claimOf(uid, uid, wholeGPU(slot))}); err != nil {
					t.Fatal(err)
				}
			}
			claim(KindClaimIntended, "a")
			claim(KindClaimPrepared, "a")
			burst(d, slot, 31, 1)
			claim(KindClaimReleased, "a")
			claim(KindClaimIntended, "b")
			claim(KindClaimPrepared, "b")
			time.Sleep(10 * time.Second)
			synctest.Wait()
			live, _ := d.Snapshot().Claim("b")
			again, _ := replayed(t, store).Claim("b")
			if diff := cmp.Diff(live, again); diff != "" || len(live.Xids) != 0 {
				t.Errorf("claim b, which raised nothing; -live +replayed:\n%s", diff)
			}
		})
	})
	t.Run("a clear by hand", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			store := &disk{}
			d, ctx := running(t, Config{Trail: store, Store: store})
			burst(d, gpuA, 95, 1)
			if _, err := d.Submit(ctx, Event{Source: SourceHand, Kind: KindClear, GPU: Device{PCI: gpuA}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			synctest.Wait()
			live, _ := d.Snapshot().GPU(gpuA)
			if again, ok := replayed(t, store).GPU(gpuA); !ok || len(live.Conditions) != 0 || len(again.Conditions) != 0 {
				t.Errorf("live %v, replayed %+v", live.Conditions, again)
			}
		})
	})
}

// An SXid names no GPU of the node.
func TestSignsOfTheNodeThatAreCountedAreAllRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &disk{}
		d, _ := running(t, Config{Trail: store})
		d.SetPolicy(policyOf(t, `{"reason": "FabricFault", "repeat": {"count": 5, "within": "1m"}}`))
		for n := range 5 {
			d.Emit(Event{
				ID: fmt.Sprintf("boot-1/kmsg/%d", n+1), Source: SourceKernelLog, Kind: KindSXid,
				SXid: &Report{Code: 20034, Severity: "Fatal", Switch: "0000:c1:00.0"},
			})
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if live, again := d.Snapshot().Node, replayed(t, store).Node; len(live) != 1 || len(again) != 1 {
			t.Errorf("live %v, replayed %v", live, again)
		}
	})
}

// A client of another version than the driver brings a line about whenever it starts.
func TestClientsFlushNoHistory(t *testing.T) {
	for _, kind := range []Kind{KindSoftware, KindRecovery, KindHang} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &disk{}
				d, _ := running(t, Config{Trail: store})
				for n := range 3000 {
					d.Emit(Event{
						ID: fmt.Sprintf("boot-1/kmsg/%d", n+1), Source: SourceKernelLog, Kind: kind,
						Fields: map[string]string{"text": fmt.Sprintf("API mismatch: pid %d", n)},
					})
					time.Sleep(time.Millisecond)
				}
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if n := len(store.records); n > 6 {
					t.Errorf("%d records of 3 s", n)
				}
			})
		})
	}
}

// slowDisk takes its time to save.
type slowDisk struct{ disk }

func (d *slowDisk) Save(payload []byte) error {
	time.Sleep(20 * time.Millisecond)
	return d.disk.Save(payload)
}

// NVML's events wait for the disk one after the other.
func TestFaultWaitsForNoStormOfAnApplication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, ctx := running(t, Config{Store: &slowDisk{}})
		tell := func(e nvml.Event) time.Duration {
			t.Helper()
			began := time.Now()
			e.Time, e.PCI = began, gpuA
			if _, err := d.Submit(ctx, FromDriver(e)); err != nil {
				t.Fatal(err)
			}
			return time.Since(began)
		}
		for _, code := range []int{13, 31, 43, 45} {
			wait := tell(nvml.Event{Type: nvml.EventXid, Xid: code}) +
				tell(nvml.Event{Type: nvml.EventOperational, Xid: code, Operational: &nvml.Operational{Severity: "recoverable"}})
			if wait != 0 {
				t.Errorf("Xid %d, which any process can raise, holds up those behind it for %v", code, wait)
			}
		}
		if tell(nvml.Event{Type: nvml.EventDoubleBitECC}) == 0 || tell(nvml.Event{Type: nvml.EventXid, Xid: 79}) == 0 {
			t.Error("a fault of the hardware is acknowledged before it is saved")
		}
	})
}
