// Package fake is a scripted NVIDIA driver: an [nvml.Driver] whose GPUs do what
// a [Scenario] says, at the times that it says. It serves `gpuvet run
// --fake-nvml` and the tests of every package that watches GPUs.
//
// The driver tells what happens the way the real one does: errors appear in
// the kernel log ([Driver.KernelLines]) and in the event stream, a lost GPU
// answers [nvml.ErrLost], a hung one does not answer at all. Readings are a
// function of the script and the time alone, with a small deterministic swing
// in power and utilisation. Time is that of package time, so all of it runs
// under testing/synctest.
//
// Package fakelib shows the same driver to other processes, behind a real
// libnvidia-ml.so.1; what is marked * below shows there alone.
//
// # Scenario files
//
// A scenario is YAML. Every key is known or an error; durations are written 5s
// or 1m30s, sizes 1024 or 40Gi, shares 0..1.
//
//	gpus: {count: 8, profile: h100}       # a100, b200, h100, h200, l40s; up to 16
//	gpus:                                 # or one by one, in PCI order
//	- {profile: h100, pci: "0000:3b:00.0", uuid: GPU-…, name: …, memory: 94Gi, numa: 0, pcieRoot: pci0000:3a, start: {…}, mig: […]}
//
//	driver:
//	  version: "570.195.03"
//	  cuda: "12.8"                        # since 13.4 events have a structured form too
//	  absent: true                        # not loaded at the start
//	  library: "575.57.08"                # * version of the library on the disk
//	  absence: sentinel                   # * what is absent is told as all ones or NaN
//	  latency: {readings: 2ms}            # * how long calls take, by group
//	  excluded: [{pci: …, uuid: …}]       # * GPUs that the driver leaves alone
//
//	start: {temperature: 41, gpu: {3: {power: 120}}}   # for all, then for one
//
//	timeline:
//	- {at: 5s, gpu: 3, xid: 79}           # gpu: all does it to every one
//	repeat: 60s                           # the timeline begins again
//
// The quantities of start, set and ramp are temperature, memoryTemperature,
// power, powerLimit, utilization, memoryUtilization, memoryUsed, memoryReserved,
// pcieReplays and wave; null is a value that the driver cannot give.
//
// numa and pcieRoot are where the kernel has a GPU, and null if it does not say.
// Unless they are given, four GPUs are at each NUMA node and two below each root.
//
// MIG is a list of profiles, each a MIG device: [3g.40gb, 2g.20gb, 1g.10gb], or
// [1c.3g.40gb, 2c.3g.40gb] for parts of one GPU instance. An empty list is MIG
// mode without instances, the word disabled no MIG mode.
//
// A step has a time and one of these:
//
//	xid: 31            with recovery, pid, process, text, gpuInstance, computeInstance
//	event: …           an event by its type; with gpuInstance, computeInstance
//	lost: true         off the bus; false: back
//	missing: true      not plugged in any more
//	bound: false       the driver is unbound from it; true: bound again
//	hang: 30s          calls wait; with gpu: all the inventory too; with uninterruptible: true *
//	fail: unknown      calls fail with an error of NVML; with for: 10s. none ends it
//	set: {…}           values at once
//	ramp: {…, over: 10s}
//	recovery: gpu-reset
//	ecc: {corrected: 1, uncorrected: 1, location: sram}
//	remapPending: true
//	remapFailed: true
//	rowsRemapped: {correctable: 1, uncorrectable: 1}
//	mig: […]           cut anew; tells so by an event
//
//	processes: [{pid: 42, name: python3, kind: compute, memory: 10Gi, utilization: 0.5, memoryUtilization: 0.2, gpuInstance: 1, computeInstance: 0}]   *
//	fields: [{id: 165, scope: 3, value: 0, type: uint}, {id: 230, error: not-supported}, {id: 82, value: null}]   *
//	metrics: {2: 93.5, 5: null}                                            * GPM metrics by number
//
//	performanceState: 8                    0 to 15; null
//	throttle: [hw-thermal]
//	pcie: {generation: 3, width: 8}        as the link is
//	pcieMax: {generation: 4, width: 16}    the most of GPU and slot together
//	pcieErrors: {recoveries: 1, correctable: 2, nonFatal: 1, fatal: 1, unsupportedRequests: 1}
//	nvlink: {link: 4, state: inactive, recoveries: 1, replays: 2, crcErrors: 3, crcDataErrors: 1}
//	nvlink: {link: 4, recoveriesFailed: 1, receiveErrors: 1, integrityErrors: 1, transmitDiscards: 1, effectiveErrors: 1, symbolErrors: 1}   since NVLink 5
//	fabric: {state: in-progress, status: timeout, clique: 1, unhealthy: [degraded-bandwidth], summary: limited-capacity}
//	eccMode: {current: true, pending: false}    the pending one comes with the next loading
//	sram: {thresholdExceeded: true, uniqueUncorrected: 3}
//	rowBanks: {max: 630, high: 7, partial: 1, low: 1, none: 1}
//	retiredPages: {corrected: 1, uncorrected: 2, pending: true}
//	migPending: true                       the MIG mode that comes with the next loading
//	persistence: false
//
// What may be unhealthy about a fabric are the values of [nvml.FabricCondition].
// Without a GPU:
//
//	kernel: "NVRM: …"  a line in the kernel log
//	reload: driver     with version and cuda: another one
//	driver: absent     or present
//	init: unknown      * beginning to use the library fails; with for: 10s. none ends it
//	latency: {…}       *
//	library: "575.57.08"   * as after an upgrade of the packages
package fake
