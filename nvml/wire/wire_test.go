package wire_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/wire"
)

// What is absent must arrive as absent, and what is zero as zero.
func TestAnswersSurviveTheWire(t *testing.T) {
	now := time.Date(2026, 11, 21, 13, 51, 57, 123456789, time.UTC)
	for name, answer := range map[string]wire.Answer{
		"done":    {},
		"error":   {Error: &wire.Error{Kind: wire.KindLost, Text: "nvmlDeviceGetPowerUsage"}},
		"list":    {List: &wire.List{Driver: "570.195.03", CUDA: "12.8", Load: "570.195.03@4711", GPUs: []string{"0000:18:00.0"}}},
		"no GPUs": {List: &wire.List{Driver: "570.195.03", Load: "570.195.03@4711", GPUs: []string{}}},
		"GPU": {GPU: &nvml.GPU{
			PCI: "0000:18:00.0", UUID: "GPU-1", Minor: 0, MIG: nvml.Some(true),
			Brand: "Nvidia", ComputeCapability: "9.0", AddressingMode: "HMM", NUMANode: nvml.Some(0), PCIeRoot: "pci0000:17",
			Instances: []nvml.Instance{
				{UUID: "MIG-1", GPUInstance: 0, ComputeInstance: 0, Profile: "1g.10gb", MemoryBytes: 1 << 33, Start: nvml.Some(0), Size: nvml.Some(1)},
				{UUID: "MIG-2", GPUInstance: 9, ComputeInstance: 1, Profile: "1c.2g.20gb", MemoryBytes: 1 << 34},
			},
		}},
		"GPU without MIG": {GPU: &nvml.GPU{PCI: "0000:18:00.0", Minor: -1}},
		"readings": {Readings: &nvml.Readings{
			Time: now, Temperature: nvml.Some(0.0), Power: nvml.Some(72.123), MemoryUsed: nvml.Some(uint64(0)),
			MemoryTotal: nvml.Some(uint64(1) << 62), Clocks: map[string]float64{"sm": 1980e6}, PCIeReplays: nvml.Some(uint64(0)),
		}},
		"health": {Health: &nvml.Health{
			Time: now, Recovery: nvml.Some(nvml.RecoverNone), RowRemapPending: nvml.Some(false),
			ECC: []nvml.ECCCount{{Location: "dram"}, {Uncorrected: true, Aggregate: true, Location: "sram", Count: 3}},
		}},
		"event": {Event: &nvml.Event{Type: nvml.EventXid, Time: now, PCI: "0000:18:00.0", Xid: 79, GPUInstance: new(0)}},
	} {
		line, err := json.Marshal(answer)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got wire.Answer
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%s: %s: %v", name, line, err)
		}
		if diff := cmp.Diff(answer, got); diff != "" {
			t.Errorf("%s: %s (-sent +received):\n%s", name, line, diff)
		}
		if strings.Contains(string(line), "null") || len(line) > wire.MaxLine {
			t.Errorf("%s: %s: want no word of what is absent", name, line)
		}
	}
}

func TestEachKindOfErrorIsWhatCallersAskFor(t *testing.T) {
	sentinels := []error{nvml.ErrNoDriver, nvml.ErrLost, nvml.ErrNotFound, wire.ErrRenewed}
	for _, test := range []struct {
		kind    wire.Kind
		want    error // nil: none of them
		useless bool
	}{
		{wire.KindNoDriver, nvml.ErrNoDriver, true},
		{wire.KindLost, nvml.ErrLost, false},
		{wire.KindNotFound, nvml.ErrNotFound, false},
		{wire.KindRenewed, wire.ErrRenewed, true},
		{wire.KindOther, nil, false},
		{"of a later version", nil, false},
	} {
		e := &wire.Error{Kind: test.kind, Text: "nvmlDeviceGetPowerUsage: GPU is lost"}
		err := e.Err()
		for _, sentinel := range sentinels {
			if errors.Is(err, sentinel) != errors.Is(test.want, sentinel) {
				t.Errorf("%s: %v: wrong about %v", test.kind, err, sentinel)
			}
		}
		if got := err.Error(); got != e.Text && got != e.Text+" (of a later version)" {
			t.Errorf("%s: %v, want %s, and nothing twice", test.kind, err, e.Text)
		}
		if e.Useless() != test.useless {
			t.Errorf("%s: useless is %t", test.kind, e.Useless())
		}
	}
	var none *wire.Error
	if none.Err() != nil || none.Useless() {
		t.Error("no error is one")
	}
}
