package fake_test

import (
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
)

func TestShippedScenariosDecode(t *testing.T) {
	files, err := filepath.Glob("../../testdata/scenarios/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenario found: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			s, err := fake.Load(file)
			if err != nil {
				t.Fatal(err)
			}
			var count int
			if name := filepath.Base(file); strings.HasPrefix(name, "1x") {
				count = 1
			} else if strings.HasPrefix(name, "4x") {
				count = 4
			} else {
				count = 8
			}
			if len(s.GPUs) != count {
				t.Errorf("%d GPUs, want %d", len(s.GPUs), count)
			}
			d := fake.New(s)
			for _, step := range s.Timeline {
				if err := d.Apply(step); err != nil {
					t.Errorf("at %s: %v", step.At, err)
				}
			}
		})
	}
}

func TestScenarioStepsDecode(t *testing.T) {
	got, err := fake.Decode("node.yaml", []byte(`
gpus: {count: 2, profile: h100}
timeline:
- {at: 1s, gpu: 0, xid: 79}
- {at: 2s, gpu: 1, xid: 31, pid: 42, process: "a, b", text: hello, recovery: gpu-reset, gpuInstance: 1, computeInstance: 0}
- {at: 3s, gpu: 0, lost: true}
- {at: 4s, gpu: 0, missing: false}
- {at: 5s, gpu: 1, hang: 30s}
- {at: 6s, gpu: 1, set: {power: null, memoryUsed: 1.5Gi}}
- {at: 7s, gpu: 1, ramp: {temperature: 85, over: 10s}}
- {at: 8s, gpu: 1, recovery: drain-and-reset}
- {at: 9s, gpu: 1, ecc: {uncorrected: 2, location: sram}}
- {at: 10s, gpu: 1, remapPending: true}
- {at: 11s, gpu: 1, remapFailed: true}
- {at: 12s, gpu: 1, rowsRemapped: {correctable: 1}}
- {at: 13s, kernel: "NVRM: text"}
- {at: 14s, reload: driver}
- {at: 15s, driver: absent}
- {at: 16s, driver: present}
- {at: 17s, gpu: all, event: contained-poison, gpuInstance: 2}
- {at: 18s, gpu: all, hang: 3s, uninterruptible: true}
- {at: 19s, gpu: 1, fail: reset-required, for: 4s}
- {at: 20s, gpu: 1, fail: none}
- {at: 21s, gpu: 1, mig: [3g.40gb]}
- {at: 22s, gpu: 1, mig: disabled}
- {at: 23s, gpu: 1, processes: [{pid: 7, name: a, kind: mps, memory: 1Gi, utilization: 0.5, gpuInstance: 1}, {pid: 8, memory: null}]}
- {at: 24s, gpu: 1, fields: [{id: 165, scope: 3, value: 18446744073709551615}, {id: 82, value: null}, {id: 230, error: not-supported}, {id: 1, type: int, value: -1}]}
- {at: 25s, gpu: 1, metrics: {2: 93.5, 5: null}}
- {at: 26s, gpu: 1, throttle: [sw-power-cap, hw-thermal]}
- {at: 27s, gpu: 1, pcie: {width: 8}}
- {at: 28s, gpu: 1, nvlink: {link: 4, state: inactive, replays: 2, recoveries: 1, crcErrors: 3}}
- {at: 29s, gpu: 1, fabric: {state: completed, status: timeout, clique: 1, unhealthy: [route-unhealthy]}}
- {at: 30s, gpu: 1, retiredPages: {uncorrected: 2, pending: true}}
- {at: 31s, reload: driver, version: "575.57.08", cuda: "12.9"}
- {at: 32s, init: no-permission, for: 5s}
- {at: 33s, latency: {readings: 2ms}}
- {at: 34s, library: "575.57.08"}
- {at: 35s, gpu: 1, performanceState: 8}
- {at: 36s, gpu: 1, performanceState: null}
- {at: 37s, gpu: 1, pcieMax: {generation: 4}}
- {at: 38s, gpu: 1, pcieErrors: {recoveries: 1, correctable: 2, nonFatal: 3, fatal: 4, unsupportedRequests: 5}}
- {at: 39s, gpu: 1, nvlink: {link: 0, crcDataErrors: 1, receiveErrors: 2, integrityErrors: 3, transmitDiscards: 4, recoveriesFailed: 5, effectiveErrors: 6, symbolErrors: 7}}
- {at: 40s, gpu: 1, fabric: {state: completed, unhealthy: [manager-disconnected], summary: limited-capacity}}
- {at: 41s, gpu: 1, eccMode: {current: true, pending: false}}
- {at: 42s, gpu: 1, sram: {thresholdExceeded: true, uniqueUncorrected: 3}}
- {at: 43s, gpu: 1, rowBanks: {max: 1, high: 2, partial: 3, low: 4, none: 5}}
- {at: 44s, gpu: 1, migPending: true}
- {at: 45s, gpu: 1, persistence: false}
- {at: 46s, gpu: 1, bound: false}
repeat: 1m
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []fake.Step{
		{At: 1 * time.Second, Do: fake.Xid{Code: 79}},
		{At: 2 * time.Second, GPU: 1, Do: fake.Xid{
			Code: 31, PID: 42, Process: "a, b", Text: "hello",
			Recovery: nvml.Some(nvml.RecoverGPUReset), GPUInstance: new(1), ComputeInstance: new(0),
		}},
		{At: 3 * time.Second, Do: fake.Lost(true)},
		{At: 4 * time.Second, Do: fake.Missing(false)},
		{At: 5 * time.Second, GPU: 1, Do: fake.Hang(30 * time.Second)},
		{At: 6 * time.Second, GPU: 1, Do: fake.Set{fake.Power: {}, fake.MemoryUsed: nvml.Some(1.5 * (1 << 30))}},
		{At: 7 * time.Second, GPU: 1, Do: fake.Ramp{To: fake.Values{fake.Temperature: nvml.Some(85.0)}, Over: 10 * time.Second}},
		{At: 8 * time.Second, GPU: 1, Do: fake.Recovery(nvml.RecoverDrainAndReset)},
		{At: 9 * time.Second, GPU: 1, Do: fake.ECC{Uncorrected: 2, Location: "sram"}},
		{At: 10 * time.Second, GPU: 1, Do: fake.RemapPending(true)},
		{At: 11 * time.Second, GPU: 1, Do: fake.RemapFailed(true)},
		{At: 12 * time.Second, GPU: 1, Do: fake.RowsRemapped{Correctable: 1}},
		{At: 13 * time.Second, Do: fake.Kernel("NVRM: text")},
		{At: 14 * time.Second, Do: fake.Reload{}},
		{At: 15 * time.Second, Do: fake.Present(false)},
		{At: 16 * time.Second, Do: fake.Present(true)},
		{At: 17 * time.Second, All: true, Do: fake.Event{Type: nvml.EventContainedPoison, GPUInstance: new(2)}},
		{At: 18 * time.Second, All: true, Do: fake.Uninterruptible(3 * time.Second)},
		{At: 19 * time.Second, GPU: 1, Do: fake.Fail{With: "reset-required", For: 4 * time.Second}},
		{At: 20 * time.Second, GPU: 1, Do: fake.Fail{}},
		{At: 21 * time.Second, GPU: 1, Do: fake.MIG{Enabled: true, Profiles: []string{"3g.40gb"}}},
		{At: 22 * time.Second, GPU: 1, Do: fake.MIG{}},
		{At: 23 * time.Second, GPU: 1, Do: fake.Processes{
			{PID: 7, Name: "a", Kind: "mps", Memory: nvml.Some[uint64](1 << 30), Utilization: 0.5, GPUInstance: new(1), ComputeInstance: new(0)},
			{PID: 8},
		}},
		{At: 24 * time.Second, GPU: 1, Do: fake.Fields{
			{ID: 165, Scope: 3, Bits: math.MaxUint64},
			{ID: 82, Type: "none"},
			{ID: 230, Failure: "not-supported"},
			{ID: 1, Type: "int", Bits: math.MaxUint32},
		}},
		{At: 25 * time.Second, GPU: 1, Do: fake.Metrics{2: nvml.Some(93.5), 5: {}}},
		{At: 26 * time.Second, GPU: 1, Do: fake.ThrottleReasons(0x44)},
		{At: 27 * time.Second, GPU: 1, Do: fake.PCIe{Generation: 5, Width: 8}},
		{At: 28 * time.Second, GPU: 1, Do: fake.NVLink{Number: 4, State: "inactive", Replays: 2, Recoveries: 1, CRCErrors: 3}},
		{At: 29 * time.Second, GPU: 1, Do: fake.Fabric{State: "completed", Status: "timeout", Clique: 1, Unhealthy: []string{"route-unhealthy"}}},
		{At: 30 * time.Second, GPU: 1, Do: fake.RetiredPages{Uncorrected: 2, Pending: true}},
		{At: 31 * time.Second, Do: fake.Reload{Version: "575.57.08", CUDA: "12.9"}},
		{At: 32 * time.Second, Do: fake.FailInit{With: "no-permission", For: 5 * time.Second}},
		{At: 33 * time.Second, Do: fake.Latency{"readings": 2 * time.Millisecond}},
		{At: 34 * time.Second, Do: fake.Library("575.57.08")},
		{At: 35 * time.Second, GPU: 1, Do: fake.PerformanceState{Value: 8, OK: true}},
		{At: 36 * time.Second, GPU: 1, Do: fake.PerformanceState{}},
		{At: 37 * time.Second, GPU: 1, Do: fake.PCIeMax{Generation: 4, Width: 16}},
		{At: 38 * time.Second, GPU: 1, Do: fake.PCIeErrors{Recoveries: 1, Correctable: 2, NonFatal: 3, Fatal: 4, UnsupportedRequests: 5}},
		{At: 39 * time.Second, GPU: 1, Do: fake.NVLink{
			CRCDataErrors: 1, ReceiveErrors: 2, IntegrityErrors: 3, TransmitDiscards: 4, RecoveriesFailed: 5, EffectiveErrors: 6, SymbolErrors: 7,
		}},
		{At: 40 * time.Second, GPU: 1, Do: fake.Fabric{State: "completed", Unhealthy: []string{"manager-disconnected"}, Summary: "limited-capacity"}},
		{At: 41 * time.Second, GPU: 1, Do: fake.ECCMode{Current: true}},
		{At: 42 * time.Second, GPU: 1, Do: fake.SRAM{ThresholdExceeded: true, UniqueUncorrected: 3}},
		{At: 43 * time.Second, GPU: 1, Do: fake.RowBanks{Max: 1, High: 2, Partial: 3, Low: 4, None: 5}},
		{At: 44 * time.Second, GPU: 1, Do: fake.MIGPending(true)},
		{At: 45 * time.Second, GPU: 1, Do: fake.Persistence(false)},
		{At: 46 * time.Second, GPU: 1, Do: fake.Bound(false)},
	}
	if diff := cmp.Diff(want, got.Timeline); diff != "" {
		t.Errorf("timeline (-want +got):\n%s", diff)
	}
	if got.Repeat != time.Minute {
		t.Errorf("repeat %s, want 1m", got.Repeat)
	}
}

func TestStartValuesGoFromProfileToAllToOne(t *testing.T) {
	for name, file := range map[string]string{
		"by count": `
gpus: {count: 2, profile: a100}
start: {temperature: 50, utilization: 0.5, gpu: {1: {temperature: 60}}}`,
		"by list": `
gpus: [{profile: a100}, {profile: a100, start: {temperature: 60}}]
start: {temperature: 50, utilization: 0.5}`,
	} {
		t.Run(name, func(t *testing.T) {
			s, err := fake.Decode("node.yaml", []byte(file))
			if err != nil {
				t.Fatal(err)
			}
			type start struct{ temperature, utilization, limit float64 }
			var got []start
			for _, g := range s.GPUs {
				got = append(got, start{g.Start[fake.Temperature].Value, g.Start[fake.Utilization].Value, g.Start[fake.PowerLimit].Value})
			}
			want := []start{{50, 0.5, 400}, {60, 0.5, 400}}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(start{})); diff != "" {
				t.Errorf("start values (-want +got):\n%s", diff)
			}
		})
	}
}

func TestListedGPUsKeepTheirIdentity(t *testing.T) {
	s, err := fake.Decode("node.yaml", []byte(`
driver: {version: "550.54.15", cuda: "12.4", absent: true, library: "570.195.03", absence: sentinel, latency: {init: 1s}, excluded: [{pci: "0000:5e:00.0"}]}
gpus:
- {profile: h100, pci: "0000:3b:00.0", uuid: GPU-01234567-89ab-cdef-0123-456789abcdef, name: NVIDIA H100 NVL, memory: 94Gi, numa: 3, pcieRoot: "pci0000:3a"}
- {profile: h100, pci: "0000:5e:00.0", numa: null, pcieRoot: null}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := fake.DriverInfo{
		Version: "550.54.15", CUDA: "12.4", Absent: true, Library: "570.195.03", Sentinels: true,
		Latency: fake.Latency{"init": time.Second}, Excluded: []fake.Excluded{{PCI: "0000:5e:00.0"}},
	}
	if diff := cmp.Diff(want, s.Driver); diff != "" {
		t.Errorf("driver (-want +got):\n%s", diff)
	}
	g := s.GPUs[0].GPU
	g.Serial, g.VBIOS = "", ""
	wantGPU := nvml.GPU{
		PCI: "0000:3b:00.0", UUID: "GPU-01234567-89ab-cdef-0123-456789abcdef", Name: "NVIDIA H100 NVL",
		Architecture: "Hopper", MemoryBytes: 94 << 30, MIG: nvml.Some(false),
		Brand: "Nvidia", ComputeCapability: "9.0", AddressingMode: "HMM", NUMANode: nvml.Some(3), PCIeRoot: "pci0000:3a",
	}
	if diff := cmp.Diff(wantGPU, g); diff != "" {
		t.Errorf("GPU (-want +got):\n%s", diff)
	}
	if g := s.GPUs[1]; g.NUMANode.OK || g.PCIeRoot != "" {
		t.Errorf("NUMA node %+v, root %q: want that the kernel tells neither", g.NUMANode, g.PCIeRoot)
	}
}

func TestFaultyScenarioIsToldWhereAndWhy(t *testing.T) {
	const two = "gpus: {count: 2, profile: h100}\n"
	for _, test := range []struct{ name, file, want string }{
		{"empty", "", `x.yaml: null: expected a map with gpus, driver, start, timeline or repeat`},
		{"not a map", "[]", `x.yaml: a list of 0: expected a map with gpus, driver, start, timeline or repeat`},
		{"no GPUs", "repeat: 5s", `x.yaml: gpus: missing: expected count and profile, or a list`},
		{"syntax", "gpus: {count: 2", `x.yaml: line 1: did not find expected ',' or '}'`},
		{"key twice", two + two, `x.yaml: unmarshal errors:
  line 2: key "gpus" already set in map`},
		{"unknown key at the top", two + "stort: {}", `x.yaml: stort: unknown key: expected one of gpus, driver, start, timeline or repeat`},
		{"unknown profile", "gpus: {count: 2, profile: h300}", `x.yaml: gpus.profile: "h300": expected a100, b200, h100, h200 or l40s`},
		{"too many GPUs", "gpus: {count: 17, profile: h100}", `x.yaml: gpus.count: 17: expected 0 to 16`},
		{"count as text", "gpus: {count: two, profile: h100}", `x.yaml: gpus.count: "two": expected 0 to 16`},
		{"no count", "gpus: {profile: h100}", `x.yaml: gpus.count: missing: expected how many`},
		{"MIG of a GPU without", "gpus: [{profile: l40s, mig: []}]", `x.yaml: gpus[0].mig: a list of 0: expected no mig: NVIDIA L40S has none`},
		{"MIG profile", "gpus: [{profile: h100, mig: [1g.5gb]}]", `x.yaml: gpus[0].mig[0]: "1g.5gb": expected 1g.10gb, 1g.10gb+me, 1g.20gb, 2g.20gb, 3g.40gb, 4g.40gb or 7g.80gb`},
		{"part of a MIG profile", "gpus: [{profile: h100, mig: [4c.3g.40gb]}]", `x.yaml: gpus[0].mig[0]: "4c.3g.40gb": expected 1c, 2c, 3c, 4c or 7c, and at most 3c`},
		{"MIG that does not fit", "gpus: {count: 1, profile: h100, mig: [4g.40gb, 2g.20gb, 2g.20gb]}", `x.yaml: gpus.mig: a list of 3: 2g.20gb does not fit beside 4g.40gb, 2g.20gb`},
		{"MIG as a word", "gpus: {count: 1, profile: h100, mig: off}", `x.yaml: gpus.mig: false: expected disabled`},
		{
			"address", `gpus: [{profile: h100, pci: "3B:00.0"}]`,
			`x.yaml: gpus[0].pci: "3B:00.0": expected a lower-case address such as 0000:3b:00.0`,
		},
		{
			"out of order", `gpus: [{profile: h100, pci: "0000:3b:00.0"}, {profile: h100, pci: "0000:18:00.0"}]`,
			`x.yaml: gpus[1].pci: 0000:18:00.0: expected an address after 0000:3b:00.0`,
		},
		{"UUID", "gpus: [{profile: h100, uuid: GPU-1}]", `x.yaml: gpus[0].uuid: "GPU-1": expected a UUID such as GPU-01234567-89ab-cdef-0123-456789abcdef`},
		{"NUMA node", "gpus: [{profile: h100, numa: -1}]", `x.yaml: gpus[0].numa: -1: expected 0 to 1023`},
		{"root", `gpus: [{profile: h100, pcieRoot: "0000:64"}]`, `x.yaml: gpus[0].pcieRoot: "0000:64": expected a root complex such as pci0000:64`},
		{"version", two + "driver: {version: 570}", `x.yaml: driver.version: 570: expected a version such as "570.195.03"`},
		{"unknown quantity", two + "start: {warmth: 41}", `x.yaml: start.warmth: unknown key: expected one of temperature, memoryTemperature, power, powerLimit, utilization, memoryUtilization, memoryUsed, memoryReserved, pcieReplays, wave or gpu`},
		{"utilisation in percent", two + "start: {utilization: 95}", `x.yaml: start.utilization: 95: expected 0 to 1`},
		{"too much memory", two + "start: {memoryUsed: 100Gi}", `x.yaml: start.memoryUsed: "100Gi": expected 0 to 85520809984 bytes`},
		{"size without unit", two + "start: {memoryUsed: 10GB}", `x.yaml: start.memoryUsed: "10GB": expected bytes, such as 1024 or 40Gi`},
		{"start of no GPU", two + "start: {gpu: {2: {power: 100}}}", `x.yaml: start.gpu.2: unknown GPU: expected 0 to 1`},
		{"GPU out of range", two + "timeline: [{at: 1s, gpu: 9, xid: 79}]", `x.yaml: timeline[0].gpu: 9: expected 0 to 1`},
		{"no GPU named", two + "timeline: [{at: 1s, xid: 79}]", `x.yaml: timeline[0].gpu: missing: expected 0 to 1, or all`},
		{"a GPU where none belongs", two + "timeline: [{at: 1s, gpu: 0, reload: driver}]", `x.yaml: timeline[0].gpu: 0: expected no gpu beside reload`},
		{"no time", two + "timeline: [{gpu: 0, xid: 79}]", `x.yaml: timeline[0].at: missing: expected a duration such as 5s`},
		{"time without unit", two + "timeline: [{at: 5, gpu: 0, xid: 79}]", `x.yaml: timeline[0].at: 5: expected a duration such as 5s`},
		{
			"two actions", two + "timeline: [{at: 5s, gpu: 0, xid: 79, lost: true}]",
			`x.yaml: timeline[0]: {at, gpu, lost, xid}: expected at and exactly one of xid, event, lost, missing, bound, hang, fail, set, ramp, recovery, ecc, remapPending, remapFailed, rowsRemapped, mig, processes, fields, metrics, throttle, performanceState, pcie, pcieMax, pcieErrors, nvlink, fabric, eccMode, sram, rowBanks, retiredPages, migPending, persistence, kernel, reload, driver, init, latency or library`,
		},
		{
			"no action", two + "timeline: [{at: 5s, gpu: 0}]",
			`x.yaml: timeline[0]: {at, gpu}: expected at and exactly one of xid, event, lost, missing, bound, hang, fail, set, ramp, recovery, ecc, remapPending, remapFailed, rowsRemapped, mig, processes, fields, metrics, throttle, performanceState, pcie, pcieMax, pcieErrors, nvlink, fabric, eccMode, sram, rowBanks, retiredPages, migPending, persistence, kernel, reload, driver, init, latency or library`,
		},
		{"a key of another action", two + "timeline: [{at: 5s, gpu: 0, lost: true, pid: 4}]", `x.yaml: timeline[0].pid: unknown key: expected one of at, gpu or lost`},
		{"lost as text", two + `timeline: [{at: 5s, gpu: 0, lost: "true"}]`, `x.yaml: timeline[0].lost: "true": expected true or false`},
		{"Xid out of range", two + "timeline: [{at: 5s, gpu: 0, xid: 0}]", `x.yaml: timeline[0].xid: 0: expected 1 to 999`},
		{"ramp without time", two + "timeline: [{at: 5s, gpu: 0, ramp: {power: 100}}]", `x.yaml: timeline[0].ramp.over: missing: expected a duration such as 10s`},
		{"ramp to nothing", two + "timeline: [{at: 5s, gpu: 0, ramp: {power: null, over: 5s}}]", `x.yaml: timeline[0].ramp.power: null: expected a value to go to`},
		{"reload of what", two + "timeline: [{at: 5s, reload: node}]", `x.yaml: timeline[0].reload: "node": expected driver`},
		{"recovery", two + "timeline: [{at: 5s, gpu: 0, recovery: reset}]", `x.yaml: timeline[0].recovery: "reset": expected none, gpu-reset, node-reboot, drain-p2p, drain-and-reset, recover-imex-domain, bus-reset or system-reboot`},
		{"ECC", two + "timeline: [{at: 5s, gpu: 0, ecc: {uncorrected: 1, location: l2}}]", `x.yaml: timeline[0].ecc.location: "l2": expected dram or sram`},
		{"a GPU by another word", two + "timeline: [{at: 5s, gpu: every, lost: true}]", `x.yaml: timeline[0].gpu: "every": expected 0 to 1, or all`},
		{"event with more to say", two + "timeline: [{at: 5s, gpu: 0, event: xid}]", `x.yaml: timeline[0].event: "xid": expected single-bit-ecc, single-bit-ecc-storm, double-bit-ecc, dram-retirement, dram-retirement-failed, contained-poison, fatal-poison, unavailable, recovery or mig-configuration`},
		{"hang of a kind", two + "timeline: [{at: 5s, gpu: 0, hang: 5s, uninterruptible: very}]", `x.yaml: timeline[0].uninterruptible: "very": expected true or false`},
		{"failure for no time", two + "timeline: [{at: 5s, gpu: 0, fail: unknown, for: 0s}]", `x.yaml: timeline[0].for: "0s": expected more than 0s`},
		{"version of a reload", two + "timeline: [{at: 5s, reload: driver, version: new}]", `x.yaml: timeline[0].version: "new": expected a version such as "570.195.03"`},
		{"field without value", two + "timeline: [{at: 5s, gpu: 0, fields: [{id: 230}]}]", `x.yaml: timeline[0].fields[0]: {id}: expected value or error`},
		{"field that is too large", two + "timeline: [{at: 5s, gpu: 0, fields: [{id: 230, value: 4294967296, type: uint}]}]", `x.yaml: timeline[0].fields[0].value: 4294967296: expected a number that fits its type`},
		{"metric", two + "timeline: [{at: 5s, gpu: 0, metrics: {128: 1}}]", `x.yaml: timeline[0].metrics.128: unknown metric: expected 1 to 127`},
		{"link", two + "timeline: [{at: 5s, gpu: 0, nvlink: {link: 18, state: inactive}}]", `x.yaml: timeline[0].nvlink.link: 18: expected 0 to 17`},
		{"link of a GPU without", "gpus: {count: 1, profile: l40s}\ntimeline: [{at: 5s, gpu: 0, nvlink: {link: 0}}]", `x.yaml: timeline[0].nvlink: {link}: expected no nvlink: NVIDIA L40S has none`},
		{"fabric that is set up wrong in two ways", two + "timeline: [{at: 5s, gpu: 0, fabric: {state: completed, unhealthy: [no-partition, wrong-system-guid]}}]", `x.yaml: timeline[0].fabric.unhealthy[1]: "wrong-system-guid": expected at most one of wrong-system-guid, wrong-chassis-serial, no-partition, insufficient-nvlinks, incompatible-firmware, invalid-location or invalid-gpu-state`},
		{"MIG mode of a GPU without", "gpus: {count: 1, profile: l40s}\ntimeline: [{at: 5s, gpu: 0, migPending: true}]", `x.yaml: timeline[0].migPending: true: expected no migPending: NVIDIA L40S has no MIG`},
		{"half an ECC mode", two + "timeline: [{at: 5s, gpu: 0, eccMode: {current: true}}]", `x.yaml: timeline[0].eccMode.pending: missing: expected true or false`},
		{"process without number", two + "timeline: [{at: 5s, gpu: 0, processes: [{name: a}]}]", `x.yaml: timeline[0].processes[0].pid: missing: expected a process number`},
		{"call group", two + "timeline: [{at: 5s, latency: {all: 1s}}]", `x.yaml: timeline[0].latency.all: unknown key: expected one of init, lookup, identity, readings, health, fields, links, processes, samples, gpm, mig or events`},
		{"excluded GPU without address", two + "driver: {excluded: [{}]}", `x.yaml: driver.excluded[0].pci: missing: expected a lower-case address such as 0000:3b:00.0`},
		{"a step behind the end of the round", two + "timeline: [{at: 1m, gpu: 0, xid: 79}]\nrepeat: 60s", `x.yaml: timeline[0].at: "1m": expected less than repeat, 1m0s`},
		{"no time to repeat in", two + "repeat: 0s", `x.yaml: repeat: "0s": expected more than 0s`},
		{"several faults", two + "start: {power: -1}\ntimeline: [{at: x, gpu: 2, xid: 1.5}]", `x.yaml: start.power: -1: expected 0 to 5000
x.yaml: timeline[0].at: "x": expected a duration such as 5s
x.yaml: timeline[0].gpu: 2: expected 0 to 1
x.yaml: timeline[0].xid: 1.5: expected 1 to 999`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := fake.Decode("x.yaml", []byte(test.file))
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(test.want, err.Error()); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMissingScenarioNamesTheFile(t *testing.T) {
	_, err := fake.Load(filepath.Join(t.TempDir(), "none.yaml"))
	if err == nil || !strings.HasPrefix(err.Error(), "read scenario: open ") {
		t.Errorf("got %v", err)
	}
}

func TestNodeOfAProfileIsTheSameEachTime(t *testing.T) {
	first, err := fake.Node("h100", 8)
	if err != nil {
		t.Fatal(err)
	}
	second, err := fake.Node("h100", 8)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("nodes differ (-first +second):\n%s", diff)
	}
	if _, err := fake.Node("h300", 1); err == nil || err.Error() != `profile "h300": expected one of a100, b200, h100, h200 or l40s` {
		t.Errorf("unknown profile: %v", err)
	}
	if _, err := fake.Node("h100", 17); err == nil || err.Error() != "17 GPUs: expected 0 to 16" {
		t.Errorf("too many GPUs: %v", err)
	}
}

func FuzzDecodeNeverPanics(f *testing.F) {
	f.Add([]byte("gpus: {count: 2, profile: h100}\ntimeline: [{at: 1s, gpu: 1, xid: 79}]"))
	f.Add([]byte("gpus: [{profile: a100, start: {power: null}}]\nstart: {gpu: {0: {wave: 0}}}\nrepeat: 1m"))
	f.Add([]byte("gpus: {count: 3, profile: a100, mig: [1c.3g.40gb, 2c.3g.40gb]}\ntimeline: [{at: 1s, gpu: all, mig: disabled}]"))
	f.Add([]byte("gpus: {count: -1}\ntimeline: [5, {ramp: []}, {kernel: {}}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := fake.Decode("x.yaml", data); err == nil {
			fake.New(s)
		}
	})
}
