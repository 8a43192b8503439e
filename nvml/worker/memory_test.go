//go:build cgo

package worker

import (
	"math"
	"testing"

	binding "github.com/NVIDIA/go-nvml/pkg/nvml"
)

// A driver may count what it reserves as used or not: ours leaves it out, also
// where hardly anything is free.
func TestReservedMemoryIsNotUsed(t *testing.T) {
	const total, reserved = 80000, 600
	for _, used := range []uint64{0, 1000, total - 2*reserved, total - reserved - 1, total - reserved} {
		free := total - reserved - used
		for name, m := range map[string]binding.Memory_v2{
			"left out":   {Total: total, Reserved: reserved, Free: free, Used: used},
			"counted in": {Total: total, Reserved: reserved, Free: free, Used: used + reserved},
		} {
			if got := usedOf(m); got != used {
				t.Errorf("%s: %d of %d used, want %d", name, got, total, used)
			}
		}
	}
	const none = math.MaxUint64
	if got := usedOf(binding.Memory_v2{Total: none, Reserved: none, Free: none, Used: none}); got != none {
		t.Errorf("%d used, though the driver cannot say", got)
	}
}
