package exporter

import (
	"fmt"
	"time"

	"gpuvet.dev/detector"
	"gpuvet.dev/nvml"
)

// node is what the tests show: change it, and ask its exporter again.
type node struct {
	snapshot *detector.Snapshot
	sample   *nvml.Sample
	sources  Sources
}

type kernelLog struct {
	records, spoofed uint64
	reading          bool
}

func (k kernelLog) Records() uint64 { return k.records }
func (k kernelLog) Spoofed() uint64 { return k.spoofed }
func (k kernelLog) Reading() bool   { return k.reading }

// healthyNode has n GPUs that are well and answered just now.
func healthyNode(n int) *node {
	now := time.Now()
	node := &node{
		snapshot: &detector.Snapshot{
			Seq: 42, Time: now.Add(-time.Minute), Boot: "b1",
			Driver:   detector.DriverState{Version: "570.195.03", CUDA: "12.8", Load: "l1", Asked: true},
			Counters: detector.Counters{Events: map[string]uint64{"kmsg/Xid": 3, "nvml-state/GPUFound": uint64(n)}},
		},
		sample: &nvml.Sample{
			Time: now, InventoryTime: now, InventoryCalls: nvml.CallCount{Count: 2, Time: 30 * time.Millisecond},
		},
	}
	for i := range n {
		g := gpuIdentity(i)
		node.snapshot.GPUs = append(node.snapshot.GPUs, detector.GPUView{
			PCI: g.PCI, UUID: g.UUID, Index: &i, Name: g.Name, Architecture: g.Architecture, Serial: g.Serial, VBIOS: g.VBIOS,
			Minor: &i, MemoryBytes: g.MemoryBytes, Status: detector.Healthy, Fresh: true,
		})
		node.sample.GPUs = append(node.sample.GPUs, nvml.GPUSample{
			GPU: g, Index: i, Freshness: 30 * time.Second,
			Readings: fullReadings(now), ReadingsAnswered: now, Health: fullHealth(now), HealthAnswered: now, Answered: now,
			Calls: nvml.CallStats{
				Readings: nvml.CallCount{Count: 60, Time: 120 * time.Millisecond},
				Health:   nvml.CallCount{Count: 6, Errors: 1, Time: 24 * time.Millisecond},
			},
		})
	}
	policy := detector.DefaultPolicy()
	node.sources = Sources{
		Version: "v1.2.3", Policy: func() *detector.Policy { return policy },
		Configuration: func() Configuration {
			return Configuration{Path: "/etc/gpuvet/gpuvet.yaml", Loaded: now.Add(-time.Hour)}
		},
		Snapshot:  func() *detector.Snapshot { return node.snapshot },
		Sample:    func() *nvml.Sample { return node.sample },
		KernelLog: kernelLog{records: 1000, spoofed: 1, reading: true},
		Workers:   func() Workers { return Workers{Started: 3, Died: 1, Killed: 1, Stuck: 1, Events: true} },
		Kept:      func() detector.Kept { return detector.Kept{Saved: now.Add(-time.Second)} },
		Allocation: func() Allocation {
			return Allocation{Mode: "taints", Server: "v1.37.1", Devices: n, Registered: true, Creates: 1, Updates: 2}
		},
		Outputs: []Output{{Name: "node", Progress: func() Progress {
			return Progress{Seq: 41, At: now.Add(-2 * time.Second)}
		}}},
	}
	return node
}

func gpuIdentity(i int) nvml.GPU {
	return nvml.GPU{
		PCI: fmt.Sprintf("0000:%02x:00.0", 0x1b+0x10*i), UUID: fmt.Sprintf("GPU-%08d-0000-0000-0000-000000000000", i),
		Name: "NVIDIA H100 80GB HBM3", Architecture: "Hopper", Serial: fmt.Sprintf("16530%02d", i), VBIOS: "96.00.74.00.01",
		Minor: i, MemoryBytes: 80 << 30,
	}
}

func fullReadings(at time.Time) nvml.Readings {
	clocks := map[string]float64{"graphics": 1.98e9, "sm": 1.98e9, "memory": 2.619e9, "video": 1.545e9}
	return nvml.Readings{
		Time: at, Temperature: nvml.Some(41.0), MemoryTemperature: nvml.Some(48.0),
		Power: nvml.Some(120.5), PowerLimit: nvml.Some(700.0), Energy: nvml.Some(1234567.5),
		MemoryTotal: nvml.Some[uint64](80 << 30), MemoryUsed: nvml.Some[uint64](1 << 30),
		MemoryFree: nvml.Some[uint64](78 << 30), MemoryReserved: nvml.Some[uint64](1 << 30),
		Utilization: nvml.Some(0.97), MemoryUtilization: nvml.Some(0.25),
		Clocks: clocks, MaxClocks: clocks, PCIeReplays: nvml.Some[uint64](7),
	}
}

func fullHealth(at time.Time) nvml.Health {
	h := nvml.Health{
		Time: at, Recovery: nvml.Some(nvml.RecoverNone),
		RowsRemappedCorrectable: nvml.Some[uint64](2), RowsRemappedUncorrectable: nvml.Some[uint64](0),
		RowRemapPending: nvml.Some(false), RowRemapFailed: nvml.Some(false),
	}
	for _, location := range []string{"dram", "sram"} {
		for _, uncorrected := range []bool{false, true} {
			for _, aggregate := range []bool{false, true} {
				h.ECC = append(h.ECC, nvml.ECCCount{Uncorrected: uncorrected, Aggregate: aggregate, Location: location, Count: 0})
			}
		}
	}
	return h
}

func lostCondition(at time.Time) detector.Condition {
	return detector.Condition{
		Reason: detector.GPULost, Class: detector.Hardware, Scope: detector.ScopeGPU, Effect: detector.NoSchedule,
		Action: detector.ActRebootNode, Taint: detector.TaintLost, Cause: "Xid 79", Since: at, Last: at, Count: 1, Xids: []int{79},
	}
}

// lose makes a GPU of the node fall off the bus.
func (n *node) lose(i int) {
	now := time.Now()
	v, s := &n.snapshot.GPUs[i], &n.sample.GPUs[i]
	v.Status, v.Fresh = detector.Unhealthy, false
	v.Conditions = []detector.Condition{lostCondition(now)}
	v.Xids = []detector.XidCount{{Code: 79, Count: 1, Last: now}}
	s.ReadingsErr = fmt.Errorf("readings of %s: %w", s.GPU.PCI, nvml.ErrLost)
	s.HealthErr = fmt.Errorf("health of %s: %w", s.GPU.PCI, nvml.ErrLost)
}
