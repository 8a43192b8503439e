//go:build cgo

package worker

import (
	binding "github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpuvet.dev/nvml"
)

func (b *batch) pcie(p *nvml.PCIe, found values) {
	const newest, widest = 15, 32 // beyond any that there will be for long
	generation := func(function string, call func() (int, binding.Return)) nvml.Maybe[int] {
		n, ok := asks(b, function, call)
		return small(n, ok, 1, newest)
	}
	width := func(function string, call func() (int, binding.Return)) nvml.Maybe[int] {
		n, ok := asks(b, function, call)
		return small(n, ok, 1, widest)
	}
	p.Generation = generation("nvmlDeviceGetCurrPcieLinkGeneration", b.device.GetCurrPcieLinkGeneration)
	p.GenerationMax = generation("nvmlDeviceGetMaxPcieLinkGeneration", b.device.GetMaxPcieLinkGeneration)
	p.GenerationMaxGPU = generation("nvmlDeviceGetGpuMaxPcieLinkGeneration", b.device.GetGpuMaxPcieLinkGeneration)
	p.Width = width("nvmlDeviceGetCurrPcieLinkWidth", b.device.GetCurrPcieLinkWidth)
	p.WidthMax = width("nvmlDeviceGetMaxPcieLinkWidth", b.device.GetMaxPcieLinkWidth)
	p.Replays = b.replays(found)
	p.Recoveries = found.count(binding.FI_DEV_PCIE_L0_TO_RECOVERY_COUNTER)
	p.CorrectableErrors = found.count(binding.FI_DEV_PCIE_COUNT_CORRECTABLE_ERRORS)
	p.NonFatalErrors = found.count(binding.FI_DEV_PCIE_COUNT_NON_FATAL_ERROR)
	p.FatalErrors = found.count(binding.FI_DEV_PCIE_COUNT_FATAL_ERROR)
	p.UnsupportedRequests = found.count(binding.FI_DEV_PCIE_COUNT_UNSUPPORTED_REQ)
}

// replays counts those of the PCIe link.
func (b *batch) replays(found values) nvml.Maybe[uint64] {
	if n := found.count(binding.FI_DEV_PCIE_REPLAY_COUNTER); n.OK {
		return n
	}
	n, ok := asks(b, "nvmlDeviceGetPcieReplayCounter", b.device.GetPcieReplayCounter)
	return counted(uint32(n), ok)
}

// links is what does not change about the NVLinks of a GPU.
type links struct {
	known   bool
	count   uint32
	version binding.NvlinkVersion // NVML_NVLINK_VERSION_*; 0 if unknown
	remote  map[int]string        // as far as told
}

// numbered are the first twelve links, which have fields of their own.
const numbered = 12

// laneField is the field of one of the first twelve links, in a row that was
// broken off after the sixth.
func laneField(first, seventh, link uint32) field {
	if link < 6 {
		return field{id: first + link}
	}
	return field{id: seventh + link - 6}
}

func (b *batch) reachLinks() {
	const most = 64 // links
	if b.links.known {
		return
	}
	found := b.fields(binding.FI_DEV_NVLINK_LINK_COUNT, binding.FI_DEV_NVLINK_GET_VERSION)
	count := found.count(binding.FI_DEV_NVLINK_LINK_COUNT)
	version := found.count(binding.FI_DEV_NVLINK_GET_VERSION)
	if count.Value > 0 && !version.OK {
		v, ok := asks(b, "nvmlDeviceGetNvLinkVersion", func() (uint32, binding.Return) { return b.device.GetNvLinkVersion(0) })
		version = counted(v, ok)
	}
	b.links = links{
		known: count.OK && (count.Value == 0 || version.Value > 0),
		count: uint32(min(count.Value, most)), version: binding.NvlinkVersion(version.Value), remote: map[int]string{},
	}
}

// before5 and since5 say which counters may be there; both if nobody knows.
func (l links) before5() bool { return l.version < binding.NVLINK_VERSION_5_0 }

func (l links) since5() bool { return l.version == 0 || l.version >= binding.NVLINK_VERSION_5_0 }

// linkFields are the fields of all links.
func (b *batch) linkFields() (wanted []field) {
	b.reachLinks()
	for link := range b.links.count {
		wanted = append(wanted, field{binding.FI_DEV_NVLINK_GET_STATE, link})
		if b.links.before5() {
			for _, id := range [...]uint32{
				binding.FI_DEV_NVLINK_ERROR_DL_REPLAY, binding.FI_DEV_NVLINK_ERROR_DL_RECOVERY, binding.FI_DEV_NVLINK_ERROR_DL_CRC,
			} {
				wanted = append(wanted, field{id, link})
			}
			if link < numbered {
				wanted = append(wanted, laneField(binding.FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_L0, binding.FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_L6, link))
			}
		}
		if b.links.since5() {
			for _, id := range [...]uint32{
				binding.FI_DEV_NVLINK_COUNT_RCV_ERRORS, binding.FI_DEV_NVLINK_COUNT_LOCAL_LINK_INTEGRITY_ERRORS,
				binding.FI_DEV_NVLINK_COUNT_XMIT_DISCARDS, binding.FI_DEV_NVLINK_COUNT_LINK_RECOVERY_SUCCESSFUL_EVENTS,
				binding.FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS, binding.FI_DEV_NVLINK_COUNT_EFFECTIVE_ERRORS,
				binding.FI_DEV_NVLINK_COUNT_SYMBOL_ERRORS,
			} {
				wanted = append(wanted, field{id, link})
			}
		}
	}
	return wanted
}

// nvlinks tells of each link, of what was found of the linkFields.
func (b *batch) nvlinks(found values) (all []nvml.NVLink) {
	byLink := false
	for i := range b.links.count {
		l := nvml.NVLink{
			Number: int(i), State: b.linkState(i, found), Remote: b.remote(int(i)),
			Replays:          found.of(binding.FI_DEV_NVLINK_ERROR_DL_REPLAY, i),
			Recoveries:       found.of(binding.FI_DEV_NVLINK_ERROR_DL_RECOVERY, i),
			CRCFlitErrors:    found.of(binding.FI_DEV_NVLINK_ERROR_DL_CRC, i),
			ReceiveErrors:    found.of(binding.FI_DEV_NVLINK_COUNT_RCV_ERRORS, i),
			IntegrityErrors:  found.of(binding.FI_DEV_NVLINK_COUNT_LOCAL_LINK_INTEGRITY_ERRORS, i),
			TransmitDiscards: found.of(binding.FI_DEV_NVLINK_COUNT_XMIT_DISCARDS, i),
			RecoveriesGood:   found.of(binding.FI_DEV_NVLINK_COUNT_LINK_RECOVERY_SUCCESSFUL_EVENTS, i),
			RecoveriesFailed: found.of(binding.FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS, i),
			EffectiveErrors:  found.of(binding.FI_DEV_NVLINK_COUNT_EFFECTIVE_ERRORS, i),
			SymbolErrors:     found.of(binding.FI_DEV_NVLINK_COUNT_SYMBOL_ERRORS, i),
		}
		if i < numbered {
			f := laneField(binding.FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_L0, binding.FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_L6, i)
			l.CRCDataErrors = found.of(f.id, f.scope)
		}
		byLink = byLink || l.Replays.OK || l.Recoveries.OK || l.CRCFlitErrors.OK
		all = append(all, l)
	}
	if !byLink && b.links.before5() {
		b.numberedLinks(all)
	}
	return all
}

// numberedLinks takes the counters that older drivers have in fields of their
// own, for the first twelve links.
func (b *batch) numberedLinks(all []nvml.NVLink) {
	rows := [...]struct {
		first, seventh uint32
		to             func(*nvml.NVLink) *nvml.Maybe[uint64]
	}{
		{
			binding.FI_DEV_NVLINK_REPLAY_ERROR_COUNT_L0, binding.FI_DEV_NVLINK_REPLAY_ERROR_COUNT_L6,
			func(l *nvml.NVLink) *nvml.Maybe[uint64] { return &l.Replays },
		},
		{
			binding.FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_L0, binding.FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_L6,
			func(l *nvml.NVLink) *nvml.Maybe[uint64] { return &l.Recoveries },
		},
		{
			binding.FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_L0, binding.FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_L6,
			func(l *nvml.NVLink) *nvml.Maybe[uint64] { return &l.CRCFlitErrors },
		},
	}
	var wanted []field
	for link := range min(uint32(len(all)), numbered) {
		for _, row := range rows {
			wanted = append(wanted, laneField(row.first, row.seventh, link))
		}
	}
	found := b.scoped(wanted)
	for link := range min(uint32(len(all)), numbered) {
		for _, row := range rows {
			f := laneField(row.first, row.seventh, link)
			*row.to(&all[link]) = found.of(f.id, f.scope)
		}
	}
}

func (b *batch) linkState(link uint32, found values) nvml.NVLinkState {
	if state := found.of(binding.FI_DEV_NVLINK_GET_STATE, link); state.OK {
		switch state.Value {
		case binding.NVLINK_STATE_INACTIVE:
			return nvml.NVLinkInactive
		case binding.NVLINK_STATE_ACTIVE:
			return nvml.NVLinkActive
		case binding.NVLINK_STATE_SLEEP:
			return nvml.NVLinkSleep
		case binding.NVLINK_STATE_ACTIVE_TRAFFIC_DISABLED:
			return nvml.NVLinkTrafficDisabled
		}
		return ""
	}
	active, ok := asks(b, "nvmlDeviceGetNvLinkState", func() (binding.EnableState, binding.Return) {
		return b.device.GetNvLinkState(int(link))
	})
	switch {
	case !ok:
		return ""
	case active == binding.FEATURE_ENABLED:
		return nvml.NVLinkActive
	}
	return nvml.NVLinkInactive
}

// remote is what is at the other end of a link; asked until it is told.
func (b *batch) remote(link int) string {
	if name := b.links.remote[link]; name != "" {
		return name
	}
	kind, ok := asks(b, "nvmlDeviceGetNvLinkRemoteDeviceType", func() (binding.IntNvLinkDeviceType, binding.Return) {
		return b.device.GetNvLinkRemoteDeviceType(link)
	})
	if !ok {
		return ""
	}
	switch kind {
	case binding.NVLINK_DEVICE_TYPE_GPU:
		b.links.remote[link] = "gpu"
	case binding.NVLINK_DEVICE_TYPE_SWITCH:
		b.links.remote[link] = "switch"
	case binding.NVLINK_DEVICE_TYPE_IBMNPU:
		b.links.remote[link] = "npu"
	}
	return b.links.remote[link]
}
