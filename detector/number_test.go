package detector

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// lines of Xids 144 to 150 on a driver before R575, by what the catalogue makes of them.
const (
	lineReset  = "NETIR_LINK_EVT  Fatal   XC0 i0 Link 09 (0x025001c6 0x00000000 0x00000000 0x00000000 0x00000000 0x00000000)"
	lineIgnore = "RLW_REMAP Nonfatal XC1 i0 Link 10 (0x00000082 0x00000100 0x00000000 0x00000000 0x00000000 0x00000000)"
	lineFollow = "RLW_REMAP Nonfatal XC1 i0 Link 10 (0x00000082 0x00000004 0x00000000 0x00000000 0x00000000 0x00000000)"
	linePeer   = "RLW_SRC_TRACK Nonfatal XC1 i0 Link 12 (0x040988e2 0x00000008 0x00000000 0x00000000 0x00000000 0x00000000)"
)

// Whichever of the two is first, the number that NVML tells and the line of the kernel
// log are one fault, and it is the line's.
func TestNumberAndLineOfAnNVLinkReportAreOneFault(t *testing.T) {
	raised := gpuA + " LinkWarning raised: Xid "
	const folded = gpuA + " LinkWarning folded: Xid 149: its line in the kernel log decides"
	type fault struct {
		Reason Reason
		Action Action
		Xids   []int
		Count  uint64
	}
	for _, tt := range []struct {
		name  string
		play  func(*script)
		want  []string
		left  []fault
		count uint64 // of Xids 145 and 149
	}{
		{
			"line first", func(s *script) { s.xid(2, gpuA, 149, lineReset); s.nvml(2.1, gpuA, 149) },
			[]string{gpuA + " LinkFault raised: Xid 149"},
			[]fault{{LinkFault, ActResetGPU, []int{149}, 1}},
			1,
		},
		{
			"number first", func(s *script) { s.nvml(1.9, gpuA, 149); s.xid(2, gpuA, 149, lineReset) },
			[]string{raised + "149", gpuA + " LinkFault raised: Xid 149", folded},
			[]fault{{LinkFault, ActResetGPU, []int{149}, 1}},
			1,
		},
		{
			"number first, of a fault that stands", func(s *script) {
				s.xid(1, gpuA, 74, "NVLink")
				s.nvml(1.9, gpuA, 149)
				s.xid(2, gpuA, 149, lineReset)
			},
			[]string{gpuA + " LinkFault raised: Xid 74", raised + "149", folded},
			[]fault{{LinkFault, ActResetGPU, []int{74, 149}, 2}},
			1,
		},
		{"line that is to be ignored first", func(s *script) { s.xid(2, gpuA, 145, lineIgnore); s.nvml(2.1, gpuA, 145) }, nil, nil, 1},
		{
			"line that is to be ignored", func(s *script) { s.nvml(1.9, gpuA, 145); s.xid(2, gpuA, 145, lineIgnore) },
			[]string{raised + "145", gpuA + " LinkWarning cleared: Xid 145: its line in the kernel log decides"},
			nil, 1,
		},
		{
			"line that warns", func(s *script) { s.nvml(1.9, gpuA, 145); s.xid(2, gpuA, 145, lineFollow) },
			[]string{raised + "145"},
			[]fault{{LinkWarning, ActRestartApp, []int{145}, 1}},
			1,
		},
		{
			"two numbers, one line", func(s *script) {
				s.nvml(1.8, gpuA, 149)
				s.nvml(1.9, gpuA, 149)
				s.xid(2, gpuA, 149, lineReset)
			},
			[]string{raised + "149", gpuA + " LinkFault raised: Xid 149"},
			[]fault{{LinkWarning, ActWatch, []int{149}, 1}, {LinkFault, ActResetGPU, []int{149}, 1}},
			2,
		},
		{
			"two numbers, two lines", func(s *script) {
				s.nvml(1.8, gpuA, 149)
				s.nvml(1.9, gpuA, 149)
				s.xid(2, gpuA, 149, lineReset)
				s.xid(2.1, gpuA, 149, lineReset)
			},
			[]string{raised + "149", gpuA + " LinkFault raised: Xid 149", folded},
			[]fault{{LinkFault, ActResetGPU, []int{149}, 2}},
			2,
		},
		{
			"beside another warning", func(s *script) {
				s.nvml(1.8, gpuA, 149)
				s.xid(1.9, gpuA, 145, linePeer)
				s.xid(2, gpuA, 149, lineReset)
			},
			[]string{raised + "149", gpuA + " LinkFault raised: Xid 149"},
			[]fault{{LinkWarning, ActWatch, []int{145}, 1}, {LinkFault, ActResetGPU, []int{149}, 1}},
			2,
		},
		{
			"too far apart", func(s *script) { s.nvml(2, gpuA, 149); s.xid(20, gpuA, 149, lineReset) },
			[]string{raised + "149", gpuA + " LinkFault raised: Xid 149"},
			[]fault{{LinkWarning, ActWatch, []int{149}, 1}, {LinkFault, ActResetGPU, []int{149}, 1}},
			2,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t)
			s.driver(1, "a")
			tt.play(s)
			s.says(tt.want...)
			i, _ := s.state.gpu(gpuA)
			var left []fault
			for _, c := range s.state.GPUs[i].Conditions {
				left = append(left, fault{c.Reason, c.Action, c.Xids, c.Count})
			}
			if diff := cmp.Diff(tt.left, left); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
			if n := s.count(gpuA, 145) + s.count(gpuA, 149); n != tt.count {
				t.Errorf("counted %d, want %d", n, tt.count)
			}
		})
	}
}
