package detector

import "testing"

func (s *script) advises(pci string, want Action) {
	s.t.Helper()
	g, _ := view(s.state).GPU(pci)
	if len(g.Conditions) != 1 || g.Conditions[0].Action != want {
		s.t.Errorf("conditions: %+v, want one with the advice %s", g.Conditions, want)
	}
}

// The recovery action is the referee of what people are to do, too: its newest word
// goes before that of the codes, and theirs holds again when it asks no more.
func TestAdviceIsTheDriversAsLongAsItAsks(t *testing.T) {
	const line = "GPU recovery action changed from "
	asks := func(s *script, seconds float64, action string) {
		s.gpu(seconds, gpuA, KindRecoveryAction, map[string]string{"action": action})
	}
	for _, tt := range []struct {
		name string
		play func(*script)
		want Action
	}{
		{"the work must leave", func(s *script) { s.xid(2, gpuA, 119, "x"); asks(s, 3, "4") }, ActDrainAndReset},
		{"and has left", func(s *script) { s.xid(2, gpuA, 119, "x"); asks(s, 3, "4"); asks(s, 13, "1") }, ActResetGPU},
		{"both in the kernel log", func(s *script) {
			s.xid(2, gpuA, 154, line+"0x0 (None) to 0x4 (Drain and Reset)")
			s.xid(3, gpuA, 154, line+"0x4 (Drain and Reset) to 0x1 (GPU Reset Required)")
		}, ActResetGPU},
		{"another advice for the code", func(s *script) {
			s.takes(1.5, `{"xid": 119, "action": "contact-support"}`)
			s.xid(2, gpuA, 119, "x")
			asks(s, 3, "1")
		}, ActResetGPU},
		{"links", func(s *script) { s.xid(2, gpuA, 74, "x"); asks(s, 3, "3") }, ActDrainP2P},
		{"it asks no more", func(s *script) { s.xid(2, gpuA, 74, "x"); asks(s, 3, "3"); asks(s, 13, "0") }, ActResetGPU},
		{"a loading that has not asked", func(s *script) {
			s.xid(2, gpuA, 74, "x")
			asks(s, 3, "3")
			s.driver(10, "b")
		}, ActResetGPU},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t)
			s.driver(1, "a")
			tt.play(s)
			s.advises(gpuA, tt.want)
		})
	}
}

func TestRemapThatFailedBeforeTheMemoryDidChangesTheAdvice(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuA, 64, "Row Remapper: failed")
	s.advises(gpuA, ActResetGPU)
	s.xid(2.1, gpuA, 48, "An uncorrectable double bit error (DBE) has been detected")
	s.advises(gpuA, ActDrainAndReset)
	s.says(gpuA+" UncorrectableMemory raised: Xid 64", gpuA+" UncorrectableMemory folded: Xid 48")
}
