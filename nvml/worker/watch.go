//go:build cgo

package worker

import (
	"math"
	"time"

	binding "github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/wire"
)

// watched are the GPUs whose events are waited for.
type watched struct {
	set    binding.EventSet
	gpus   map[binding.Device]identity
	aside  aside
	queued []*nvml.Event // from aside
}

type identity struct{ pci, uuid string }

// eventTypes are the events that are told, by NVML's bit.
var eventTypes = map[uint64]nvml.EventType{
	binding.EventTypeXidCriticalError:       nvml.EventXid,
	binding.EventTypeSingleBitEccError:      nvml.EventSingleBitECC,
	binding.EventTypeSingleBitEccErrorStorm: nvml.EventSingleBitStorm,
	binding.EventTypeDoubleBitEccError:      nvml.EventDoubleBitECC,
	binding.EventTypeDramRetirementEvent:    nvml.EventRetirement,
	binding.EventTypeDramRetirementFailure:  nvml.EventRetirementFailed,
	binding.EventTypeNonFatalPoisonError:    nvml.EventContainedPoison,
	binding.EventTypeFatalPoisonError:       nvml.EventFatalPoison,
	binding.EventTypeGpuUnavailableError:    nvml.EventUnavailable,
	binding.EventTypeGpuRecoveryAction:      nvml.EventRecovery,
	binding.EventMigConfigChange:            nvml.EventMIGConfiguration,
}

// watch adds a GPU. One that supports no event is watched too: nothing comes.
func (s *session) watch(pci string) error {
	if err := s.makeSet(); err != nil {
		return err
	}
	return s.take(pci, func(b *batch) {
		b.whole = true
		supported, _ := asks(b, "nvmlDeviceGetSupportedEventTypes", b.device.GetSupportedEventTypes)
		var mask uint64
		for bit := range eventTypes {
			mask |= bit & supported
		}
		if mask == 0 {
			return
		}
		uuid := b.text("nvmlDeviceGetUUID", b.device.GetUUID)
		_, ok := asks(b, "nvmlDeviceRegisterEvents", func() (struct{}, binding.Return) {
			return struct{}{}, b.device.RegisterEvents(mask, s.watched.set)
		})
		if ok {
			s.watched.gpus[b.device] = identity{pci, uuid}
			s.watched.aside.watch(b, uuid)
		}
	})
}

func (s *session) makeSet() error {
	if s.watched.set != nil {
		return nil
	}
	for _, function := range []string{"nvmlEventSetCreate", "nvmlEventSetWait_v2"} {
		if !s.lib.has(function) {
			return failed(function, binding.ERROR_FUNCTION_NOT_FOUND)
		}
	}
	set, code := s.lib.EventSetCreate()
	if code != binding.SUCCESS {
		return failed("nvmlEventSetCreate", code)
	}
	s.watched = watched{set: set, gpus: map[binding.Device]identity{}, aside: newAside(s.lib)}
	return nil
}

// heartbeat leaves a second for the way.
const heartbeat = (wire.Heartbeat - 1) * time.Second

// events tells events until the stream breaks. It says that there is none at
// once, so that a listener knows when it listens, and from time to time. That is
// only said when it is true: then all that happened before was told.
func (s *session) events(tell func(*nvml.Event) error) error {
	if err := s.makeSet(); err != nil {
		return err
	}
	bound := "" // the GPU that the driver was bound to last
	for next := time.Now(); ; {
		most := time.Until(next)
		if bound != "" {
			most = 0
		}
		event, err := s.wait(most)
		if err != nil {
			return err
		}
		if event == nil && bound != "" {
			// What the set knows of this GPU is of the time before.
			return &callError{call: "wait for events: the driver was bound to " + bound, kind: wire.KindOther}
		}
		if event == nil && time.Now().Before(next) {
			continue
		}
		if event == nil {
			next = time.Now().Add(heartbeat)
		}
		if err := tell(event); err != nil {
			return err
		}
		if event != nil && event.Type == nvml.EventBind {
			bound = event.PCI
		}
	}
}

// wait waits for one event, for some time at most; nil if none came. What comes
// aside is told before the error that ends the wait, which comes again.
func (s *session) wait(most time.Duration) (*nvml.Event, error) {
	if queued := s.watched.queued; len(queued) > 0 {
		s.watched.queued = queued[1:]
		return queued[0], nil
	}
	if s.watched.aside.any() {
		most = min(most, asideEvery)
	}
	began := time.Now()
	data, code := s.watched.set.Wait(uint32(max(0, most.Milliseconds())) + 1)
	s.watched.queued = s.asideEvents()
	if code != binding.SUCCESS && len(s.watched.queued) > 0 {
		return s.wait(0)
	}
	switch code {
	case binding.SUCCESS:
		return s.event(data), nil
	case binding.ERROR_TIMEOUT:
		// It may come back early, and does not wait for a set of no GPUs. What
		// happens during a nap is kept in the set.
		const nap = 10 * time.Millisecond
		if time.Since(began) < nap && most > nap {
			time.Sleep(nap)
		}
		return nil, nil
	}
	return nil, failed("nvmlEventSetWait_v2", code)
}

// event is nil for one that is not known here.
func (s *session) event(data binding.EventData) *nvml.Event {
	kind, ok := eventTypes[data.EventType]
	if !ok {
		return nil
	}
	of, ok := s.watched.gpus[data.Device]
	if !ok && s.lib.has("nvmlDeviceGetPciInfo_v3") {
		if info, code := data.Device.GetPciInfo(); code == binding.SUCCESS {
			of.pci, ok = address(info), true
		}
	}
	if !ok {
		return nil
	}
	e := &nvml.Event{
		Type: kind, Time: time.Now(), PCI: of.pci, UUID: of.uuid,
		GPUInstance: instanceOf(data.GpuInstanceId), ComputeInstance: instanceOf(data.ComputeInstanceId),
	}
	if kind == nvml.EventXid {
		e.Xid = int(data.EventData)
	}
	return e
}

// instanceOf is the number of an instance; nil if none is concerned.
func instanceOf(id uint32) *int {
	if id == math.MaxUint32 {
		return nil
	}
	return new(int(id))
}
