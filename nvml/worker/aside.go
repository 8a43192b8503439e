//go:build cgo

package worker

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"time"

	binding "github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpuvet.dev/nvml"
)

// asideEvery is how often it is looked at what comes beside the events of GPUs.
const asideEvery = time.Second

// aside are two sets that newer libraries have beside the one that is waited
// for: of operational events (CUDA 13.4) and of events of the driver itself
// (575). They are looked at in between, so that one call alone can get stuck,
// and what goes wrong with them takes nothing from the events of GPUs.
type aside struct {
	operational binding.EventSet  // nil: there is none
	addresses   map[string]string // of the GPUs in it, by UUID
	system      *binding.SystemEventSet
}

func newAside(lib *library) aside {
	a := aside{addresses: map[string]string{}}
	has := func(functions ...string) bool {
		return !slices.ContainsFunc(functions, func(name string) bool { return !lib.has(name) })
	}
	if has("nvmlEventSetRegisterGpuOperationalEvents_v1", "nvmlEventSetWait_v3", "nvmlEventSetGetContextCount_v1",
		"nvmlEventSetGetContextInfo_v1", "nvmlEventSetGetGpuOperationalEventContextLegacyXid_v1") {
		if set, code := lib.EventSetCreate(); code == binding.SUCCESS {
			a.operational = set
		}
	}
	if !has("nvmlSystemEventSetCreate", "nvmlSystemRegisterEvents", "nvmlSystemEventSetWait") {
		return a
	}
	created := binding.SystemEventSetCreateRequest{}
	created.Version = binding.STRUCT_VERSION(created, 1)
	if lib.SystemEventSetCreate(&created) != binding.SUCCESS {
		return a
	}
	registered := binding.SystemRegisterEventRequest{
		EventTypes: binding.SystemEventTypeGpuDriverUnbind | binding.SystemEventTypeGpuDriverBind, Set: created.Set,
	}
	registered.Version = binding.STRUCT_VERSION(registered, 1)
	if lib.SystemRegisterEvents(&registered) == binding.SUCCESS {
		a.system = &created.Set
	}
	return a
}

// any reports whether there is anything to look at.
func (a *aside) any() bool { return a.system != nil || len(a.addresses) > 0 }

// watch adds a GPU to the set of operational events, if it has them: those that
// a person would want to know of.
func (a *aside) watch(b *batch, uuid string) {
	var config binding.GpuOperationalEventConfig_v1
	if a.operational == nil || uuid == "" || len(uuid) >= len(config.Uuid) {
		return
	}
	for i := range len(uuid) {
		config.Uuid[i] = int8(uuid[i])
	}
	config.MinLogLevel = uint32(binding.GPU_OPERATIONAL_EVENT_LOG_LEVEL_NOTICE)
	b.spare = true
	_, ok := asks(b, "nvmlEventSetRegisterGpuOperationalEvents_v1", func() (struct{}, binding.Return) {
		return struct{}{}, a.operational.RegisterGpuOperationalEvents_v1(&config)
	})
	if ok {
		a.addresses[uuid] = b.pci
	}
}

// asideEvents are those that are there by now. They never fail: where they
// cannot be had, there are none.
func (s *session) asideEvents() []*nvml.Event {
	return append(s.watched.aside.operationalEvents(), s.watched.aside.systemEvents(s.lib)...)
}

func (a *aside) operationalEvents() (all []*nvml.Event) {
	const most = 64 // at a time
	for len(a.addresses) > 0 && len(all) < most {
		data, code := a.operational.Wait_v3(0)
		if code != binding.SUCCESS {
			return all
		}
		uuid := chars(data.Uuid[:])
		pci := a.addresses[uuid]
		if pci == "" || data.DataType != uint32(binding.EVENT_DATA_TYPE_GPU_OPERATIONAL_EVENT) {
			continue
		}
		all = append(all, &nvml.Event{
			Type: nvml.EventOperational, Time: time.Now(), PCI: pci, UUID: uuid, Xid: a.legacyXid(), Operational: operational(data),
		})
	}
	return all
}

// legacyXid is that of the event that was last waited for; 0 if it has none.
func (a *aside) legacyXid() int {
	contexts, code := a.operational.GetContextCount_v1()
	if code != binding.SUCCESS {
		return 0
	}
	for i := range contexts.Count {
		info, code := a.operational.GetContextInfo_v1(i)
		if code != binding.SUCCESS || info.NvmlGpuOperationalEventContextType != uint32(binding.GPU_OPERATIONAL_EVENT_CONTEXT_TYPE_LEGACY_XID) {
			continue
		}
		if xid, code := a.operational.GetGpuOperationalEventContextLegacyXid_v1(i); code == binding.SUCCESS {
			return int(xid)
		}
	}
	return 0
}

func operational(data binding.EventSetWaitData_v3) *nvml.Operational {
	o := &nvml.Operational{
		Severity: named(data.Severity, map[uint32]string{
			uint32(binding.OPERATIONAL_EVENT_SEVERITY_INFORMATIONAL): "informational",
			uint32(binding.OPERATIONAL_EVENT_SEVERITY_CORRECTED):     "corrected",
			uint32(binding.OPERATIONAL_EVENT_SEVERITY_RECOVERABLE):   "recoverable",
			uint32(binding.OPERATIONAL_EVENT_SEVERITY_FATAL):         "fatal",
		}),
		Level: named(data.LogLevel, map[uint32]string{
			uint32(binding.GPU_OPERATIONAL_EVENT_LOG_LEVEL_TELEMETRY): "telemetry",
			uint32(binding.GPU_OPERATIONAL_EVENT_LOG_LEVEL_DIAG):      "diagnostic",
			uint32(binding.GPU_OPERATIONAL_EVENT_LOG_LEVEL_NOTICE):    "notice",
			uint32(binding.GPU_OPERATIONAL_EVENT_LOG_LEVEL_WARNING):   "warning",
			uint32(binding.GPU_OPERATIONAL_EVENT_LOG_LEVEL_ERROR):     "error",
		}),
		Module: chars(data.SourceModule[:]), Code: data.ModuleEventCode, Category: data.CategoryId,
	}
	for bit, name := range [...]string{
		"uncontained", "latent", "propagated", "component-reset", "threshold-exceeded", "primary", "overflow",
	} {
		if data.Attributes&(1<<bit) != 0 {
			o.Attributes = append(o.Attributes, name)
		}
	}
	return o
}

func named(n uint32, names map[uint32]string) string {
	if name, ok := names[n]; ok {
		return name
	}
	return strconv.FormatUint(uint64(n), 10)
}

// chars is a text that ends with a zero or with its room.
func chars(room []int8) string {
	var text []byte
	for _, c := range room {
		if c == 0 {
			break
		}
		text = append(text, byte(c))
	}
	return string(text)
}

func (a *aside) systemEvents(lib *library) (all []*nvml.Event) {
	const room = 16
	if a.system == nil {
		return nil
	}
	// The request points to memory of ours, which the binding does not pin.
	var data [room]binding.SystemEventData_v1
	var pinner runtime.Pinner
	defer pinner.Unpin()
	pinner.Pin(&data[0])
	request := binding.SystemEventSetWaitRequest{Set: *a.system, Data: &data[0], DataSize: room}
	request.Version = binding.STRUCT_VERSION(request, 1)
	if lib.SystemEventSetWait(&request) != binding.SUCCESS {
		return nil
	}
	for _, e := range data[:min(request.NumEvent, room)] {
		kind := nvml.EventUnbind
		if e.EventType == binding.SystemEventTypeGpuDriverBind {
			kind = nvml.EventBind
		}
		all = append(all, &nvml.Event{Type: kind, Time: time.Now(), PCI: addressOfID(e.GpuId)})
	}
	return all
}

// addressOfID is the address of a GPU by the number that the driver knows it by:
// the domain in its upper half, then bus and device
// (gpuGenerate32BitId in NVIDIA's open kernel modules).
func addressOfID(id uint32) string {
	return fmt.Sprintf("%04x:%02x:%02x.0", id>>16, id>>8&0xff, id&0xff)
}
