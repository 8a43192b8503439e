package fake_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
)

func TestClocksCountForHowLongTheyWereHeldDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := node(t, "h100", 1)
		s.GPUs[0].Start[fake.Utilization] = nvml.Some(0.5)
		d, pci := fake.New(s), s.GPUs[0].PCI
		times := func() map[nvml.ClockReason]time.Duration {
			counted := map[nvml.ClockReason]time.Duration{}
			for reason, held := range health(t, d, pci).ClockTimes {
				if held > 0 {
					counted[reason] = held
				}
			}
			return counted
		}
		const thermalAndPower = fake.ThrottleReasons(0x44)
		apply(t, d, 0, thermalAndPower)
		time.Sleep(3 * time.Second)
		if diff := cmp.Diff([]nvml.ClockReason{nvml.ClockPowerCap, nvml.ClockHWThermal}, health(t, d, pci).ClockReasons.Value); diff != "" {
			t.Errorf("reasons (-want +got):\n%s", diff)
		}
		apply(t, d, 0, fake.ThrottleReasons(0x4))
		time.Sleep(2 * time.Second)
		apply(t, d, 0, fake.ThrottleReasons(0))
		time.Sleep(time.Minute)
		want := map[nvml.ClockReason]time.Duration{
			nvml.ClockPowerCap: 5 * time.Second, nvml.ClockHWThermal: 3 * time.Second, nvml.ClockThermal: 3 * time.Second,
		}
		if diff := cmp.Diff(want, times()); diff != "" {
			t.Errorf("times (-want +got):\n%s", diff)
		}
		if reasons := health(t, d, pci).ClockReasons; !reasons.OK || reasons.Value == nil || len(reasons.Value) > 0 {
			t.Errorf("reasons %#v, want none, and that there are none", reasons)
		}
		apply(t, d, 0, fake.Reload{}, fake.Set{fake.Utilization: nvml.Some(0.0)})
		if got := times(); len(got) > 0 {
			t.Errorf("times after a reload: %v", got)
		}
		if diff := cmp.Diff([]nvml.ClockReason{nvml.ClockIdle}, health(t, d, pci).ClockReasons.Value); diff != "" {
			t.Errorf("reasons without work (-want +got):\n%s", diff)
		}
	})
}

func TestModesChangeWithTheNextLoading(t *testing.T) {
	s := node(t, "h100", 1)
	d, pci := fake.New(s), s.GPUs[0].PCI
	apply(t, d, 0, fake.MIG{Enabled: true, Profiles: []string{"3g.40gb"}}, fake.MIGPending(false), fake.ECCMode{Current: true})
	h := health(t, d, pci)
	if want := (nvml.Mode{Current: true}); h.MIGMode.Value != want || h.ECCMode.Value != want || h.ECC == nil || h.RowBanks.OK {
		t.Errorf("before: MIG %+v, ECC %+v with %d counters, row banks %+v", h.MIGMode, h.ECCMode, len(h.ECC), h.RowBanks)
	}
	apply(t, d, 0, fake.Reload{})
	h = health(t, d, pci)
	if off := nvml.Some(nvml.Mode{}); h.MIGMode != off || h.ECCMode != off || h.ECC != nil || h.SRAMThresholdExceeded.OK || !h.RowBanks.OK {
		t.Errorf("after: %+v", h)
	}
	inventory, err := d.Inventory(t.Context())
	if err != nil || inventory.GPUs[0].MIG.Value || len(inventory.GPUs[0].Instances) > 0 {
		t.Errorf("%+v, %v: want no MIG", inventory, err)
	}
}

func TestRemappedRowsTakeTheirBanksSpares(t *testing.T) {
	s := node(t, "h100", 1)
	d, pci := fake.New(s), s.GPUs[0].PCI
	apply(t, d, 0, fake.RowsRemapped{Correctable: 1, Uncorrectable: 2}, fake.RemapFailed(true))
	if got, want := health(t, d, pci).RowBanks.Value, (nvml.RowBanks{Max: 2556, High: 3, None: 1}); got != want {
		t.Errorf("banks %+v, want %+v", got, want)
	}
}

func TestEachGenerationOfLinkHasItsCounters(t *testing.T) {
	for profile, want := range map[string]nvml.NVLink{
		"a100": {
			Number: 3, State: nvml.NVLinkInactive, Remote: "switch", Replays: nvml.Some[uint64](1), Recoveries: nvml.Some[uint64](2),
			CRCFlitErrors: nvml.Some[uint64](3), CRCDataErrors: nvml.Some[uint64](4),
		},
		"b200": {
			Number: 3, State: nvml.NVLinkInactive, Remote: "switch", ReceiveErrors: nvml.Some[uint64](5), IntegrityErrors: nvml.Some[uint64](6),
			TransmitDiscards: nvml.Some[uint64](7), RecoveriesGood: nvml.Some[uint64](2), RecoveriesFailed: nvml.Some[uint64](8),
			EffectiveErrors: nvml.Some[uint64](9), SymbolErrors: nvml.Some[uint64](10),
		},
	} {
		s := node(t, profile, 1)
		d := fake.New(s)
		apply(t, d, 0, fake.NVLink{
			Number: 3, State: "inactive", Replays: 1, Recoveries: 1, CRCErrors: 3, CRCDataErrors: 4,
			ReceiveErrors: 5, IntegrityErrors: 6, TransmitDiscards: 7, RecoveriesFailed: 8, EffectiveErrors: 9, SymbolErrors: 10,
		}, fake.NVLink{Number: 3, Recoveries: 1})
		if diff := cmp.Diff(want, health(t, d, s.GPUs[0].PCI).NVLinks[3]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", profile, diff)
		}
	}
}
