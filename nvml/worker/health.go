//go:build cgo

package worker

import (
	"errors"
	"time"

	binding "github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpuvet.dev/nvml"
)

// health takes the facts that decide whether a GPU is fit. Those that say it by
// themselves are all there or it is an error, as a fact that failed is not one
// that is fine; only a driver that asks for a recovery is heard in any case. The
// others are there as far as the driver gives them.
func (s *session) health(pci string) (*nvml.Health, error) {
	var h nvml.Health
	err := s.take(pci, func(b *batch) {
		h.Time = time.Now()
		found := b.fields(binding.FI_DEV_GET_GPU_RECOVERY_ACTION, binding.FI_DEV_REMAPPED_COR, binding.FI_DEV_REMAPPED_UNC,
			binding.FI_DEV_REMAPPED_PENDING, binding.FI_DEV_REMAPPED_FAILURE)
		if action := found.count(binding.FI_DEV_GET_GPU_RECOVERY_ACTION); action.OK {
			h.Recovery = nvml.Some(nvml.RecoveryAction(action.Value))
		}
		b.whole = h.Recovery.Value == nvml.RecoverNone
		b.rows(&h, found)
		b.errors(&h)
		b.spare = true
		b.facts(&h)
	})
	if e, ok := errors.AsType[*callError](err); ok && e.code == binding.ERROR_RESET_REQUIRED {
		// The driver's word all the same, and before 570 its only one.
		return &nvml.Health{Time: time.Now(), Recovery: nvml.Some(nvml.RecoverGPUReset)}, nil
	}
	if err != nil {
		return nil, err
	}
	return &h, nil
}

func (b *batch) rows(h *nvml.Health, found values) {
	type rows struct {
		correctable, uncorrectable int
		pending, failed            bool
	}
	if h.RowRemapPending = found.flag(binding.FI_DEV_REMAPPED_PENDING); h.RowRemapPending.OK {
		h.RowsRemappedCorrectable = found.count(binding.FI_DEV_REMAPPED_COR)
		h.RowsRemappedUncorrectable = found.count(binding.FI_DEV_REMAPPED_UNC)
		h.RowRemapFailed = found.flag(binding.FI_DEV_REMAPPED_FAILURE)
		return
	}
	r, ok := asks(b, "nvmlDeviceGetRemappedRows", func() (r rows, code binding.Return) {
		r.correctable, r.uncorrectable, r.pending, r.failed, code = b.device.GetRemappedRows()
		return r, code
	})
	if ok {
		h.RowsRemappedCorrectable = counted(uint32(r.correctable), true)
		h.RowsRemappedUncorrectable = counted(uint32(r.uncorrectable), true)
		h.RowRemapPending, h.RowRemapFailed = nvml.Some(r.pending), nvml.Some(r.failed)
	}
}

// errors counts the memory errors.
func (b *batch) errors(h *nvml.Health) {
	for _, uncorrected := range []bool{false, true} {
		for _, aggregate := range []bool{false, true} {
			for _, c := range b.errorsOf(uncorrected, aggregate) {
				c.Uncorrected, c.Aggregate = uncorrected, aggregate
				h.ECC = append(h.ECC, c)
			}
		}
	}
}

// errorsOf counts the errors of one kind and lifetime by location, or all of
// them together where the GPU does not tell locations apart.
func (b *batch) errorsOf(uncorrected, aggregate bool) (counts []nvml.ECCCount) {
	kind, lifetime := binding.MEMORY_ERROR_TYPE_CORRECTED, binding.VOLATILE_ECC
	if uncorrected {
		kind = binding.MEMORY_ERROR_TYPE_UNCORRECTED
	}
	if aggregate {
		lifetime = binding.AGGREGATE_ECC
	}
	at := func(location binding.MemoryLocation) nvml.Maybe[uint64] {
		n, ok := asks(b, "nvmlDeviceGetMemoryErrorCounter", func() (uint64, binding.Return) {
			return b.device.GetMemoryErrorCounter(kind, lifetime, location)
		})
		return counted(n, ok)
	}
	dram, sram := at(binding.MEMORY_LOCATION_DRAM), at(binding.MEMORY_LOCATION_SRAM)
	if dram.OK && !sram.OK {
		// Before Turing each kind of SRAM is counted for itself.
		for _, part := range []binding.MemoryLocation{
			binding.MEMORY_LOCATION_L1_CACHE, binding.MEMORY_LOCATION_L2_CACHE, binding.MEMORY_LOCATION_REGISTER_FILE,
			binding.MEMORY_LOCATION_TEXTURE_MEMORY, binding.MEMORY_LOCATION_TEXTURE_SHM, binding.MEMORY_LOCATION_CBU,
		} {
			if n := at(part); n.OK {
				sram = nvml.Some(sram.Value + n.Value)
			}
		}
	}
	if dram.OK {
		counts = append(counts, nvml.ECCCount{Location: "dram", Count: dram.Value})
	}
	if sram.OK {
		counts = append(counts, nvml.ECCCount{Location: "sram", Count: sram.Value})
	}
	if len(counts) > 0 {
		return counts
	}
	n, ok := asks(b, "nvmlDeviceGetTotalEccErrors", func() (uint64, binding.Return) {
		return b.device.GetTotalEccErrors(kind, lifetime)
	})
	if all := counted(n, ok); all.OK {
		counts = append(counts, nvml.ECCCount{Location: "all", Count: all.Value})
	}
	return counts
}
