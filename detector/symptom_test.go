package detector

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// members names the signs of a fault, symptoms in brackets.
func members(c Condition) []string {
	var all []string
	for _, m := range c.Members {
		text := fmt.Sprintf("%s %d×%d", m.Kind, m.Code, m.Count)
		if m.Symptom {
			text = "(" + text + ")"
		}
		all = append(all, text)
	}
	return all
}

func (s *script) lists(pci string, want ...string) {
	s.t.Helper()
	if diff := cmp.Diff(want, members(s.stands(pci))); diff != "" {
		s.t.Errorf("members (-want +got):\n%s", diff)
	}
}

func TestIncidentListsItsSignsAndSymptomsInBothOrders(t *testing.T) {
	for _, tt := range []struct {
		name string
		play func(*script)
		is   Reason
		want []string
	}{
		{
			"two reporters", func(s *script) { s.xid(2, gpuA, 119, "x"); s.nvml(2.1, gpuA, 119); s.xid(5, gpuA, 119, "x") },
			ResetRequired,
			[]string{"Xid 119×2"},
		},
		{
			"45 after the cause", func(s *script) { s.xid(2, gpuA, 109, "x"); s.xid(3, gpuA, 45, "Ch 1"); s.xid(3.1, gpuA, 45, "Ch 2") },
			ResetRequired,
			[]string{"Xid 109×1", "(Xid 45×2)"},
		},
		{
			"45 before the cause", func(s *script) { s.xid(2, gpuA, 45, "Ch 1"); s.xid(2.1, gpuA, 45, "Ch 2"); s.xid(3, gpuA, 109, "x") },
			ResetRequired,
			[]string{"Xid 109×1", "(Xid 45×2)"},
		},
		{"45 that names its cause long after", func(s *script) {
			s.xid(2, gpuA, 109, "x")
			s.xid(300, gpuA, 45, "pid=7, name=python, Ch 00000001 caused by previous Xid 109")
		}, ResetRequired, []string{"Xid 109×1", "(Xid 45×1)"}},
		{
			"memory: 48, 63, 171", func(s *script) { s.xid(2, gpuA, 48, "DBE"); s.xid(2.1, gpuA, 63, "row"); s.xid(2.2, gpuA, 171, "x") },
			UncorrectableMemory,
			[]string{"Xid 48×1", "Xid 63×1", "Xid 171×1"},
		},
		{
			"memory: 63, 172, 48", func(s *script) { s.xid(2, gpuA, 63, "row"); s.xid(2.1, gpuA, 172, "x"); s.xid(2.2, gpuA, 48, "DBE") },
			UncorrectableMemory,
			[]string{"Xid 172×1", "Xid 63×1", "Xid 48×1"},
		},
		{
			"memory: 64, 63, 48", func(s *script) { s.xid(2, gpuA, 64, "row"); s.xid(2.1, gpuA, 63, "x"); s.xid(2.2, gpuA, 48, "DBE") },
			UncorrectableMemory,
			[]string{"Xid 64×1", "Xid 63×1", "Xid 48×1"},
		},
		{"what a lost GPU prints", func(s *script) {
			s.xid(2, gpuA, 79, "GPU has fallen off the bus.")
			s.xid(3, gpuA, 119, "Timeout")
			s.line(4, "NVRM: GPU "+gpuA+": RmInitAdapter failed! (0x24:0x65:1568)")
			s.line(5, "pcieport 0000:00:02.0: AER: Uncorrected (Fatal) error received: "+gpuA)
		}, GPULost, []string{"Xid 79×1", "(Xid 119×1)", "(InitFailed 0×1)", "(PCIeError 0×1)"}},
		{"the error of the bus came first", func(s *script) {
			s.line(2, "pcieport 0000:00:02.0: AER: Uncorrected (Fatal) error received: "+gpuA)
			s.xid(3, gpuA, 79, "GPU has fallen off the bus.")
		}, GPULost, []string{"Xid 79×1", "(PCIeError 0×1)"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t)
			s.driver(1, "a")
			tt.play(s)
			s.lists(gpuA, tt.want...)
			if c := s.stands(gpuA); c.Reason != tt.is {
				t.Errorf("reason %s, want %s", c.Reason, tt.is)
			}
		})
	}
}

func TestSymptomThatCameFirstIsToldToBeOne(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuA, 45, "Ch 1")
	s.xid(3, gpuA, 109, "x")
	s.says(gpuA+" ApplicationFault raised: Xid 45", gpuA+" ResetRequired raised: Xid 109",
		gpuA+" ApplicationFault folded: Xid 45 is a symptom of Xid 109")
}

func TestWhatNothingExplainsStaysAFaultOfItsOwn(t *testing.T) {
	for name, play := range map[string]func(*script){
		"45 long before":                   func(s *script) { s.xid(2, gpuA, 45, "Ch 1"); s.xid(70, gpuA, 109, "x") },
		"another application fault before": func(s *script) { s.xid(2, gpuA, 31, "x"); s.xid(2.1, gpuA, 45, "Ch 1"); s.xid(3, gpuA, 109, "x") },
		"45 that names an application's": func(s *script) {
			s.xid(2, gpuA, 109, "x")
			s.xid(3, gpuA, 45, "pid=7, name=python, Ch 00000001 caused by previous Xid 31")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t)
			s.driver(1, "a")
			play(s)
			if got := s.state.GPUs[0].Conditions; len(got) != 2 {
				t.Errorf("want two faults: %+v", got)
			}
		})
	}
}

// Any process can bring about an Xid 45.
func TestSymptomsOfAnApplicationKeepNoFaultFromEnding(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuA, 109, "x")
	s.xid(2, gpuB, 74, "x")
	for i := range 200 {
		s.xid(3+float64(i)*20, gpuB, 45, "Ch 1")
	}
	s.rest(4000)
	s.told = nil
	s.driver(4001, "b")
	s.xid(4010, gpuA, 45, "Ch 1")
	s.rest(4040)
	s.says(gpuA+" ApplicationFault raised: Xid 45", gpuA+" ResetRequired cleared: driver was loaded again")
	s.status(gpuB, Healthy)
}

func TestPauseExplainsNoXid(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.fold(Event{Source: SourceHand, Kind: KindPaused, Time: at(2), Fields: map[string]string{"for": "10m", "by": ByHand}})
	s.told = nil
	s.xid(3, gpuA, 45, "Ch 1")
	s.says(gpuA + " ApplicationFault raised: Xid 45")
}

func TestMembersAreBounded(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.xid(2, gpuA, 79, "GPU has fallen off the bus.")
	s.gpu(2.1, gpuA, KindGPULost, nil)
	for code := range 200 {
		s.xid(3, gpuA, 200+code, "x")
	}
	if n := len(s.stands(gpuA).Members); n != maxMembers {
		t.Errorf("%d members, want %d", n, maxMembers)
	}
}

func TestFaultOfAnInstanceStaysThere(t *testing.T) {
	instance := func(s *script, seconds float64, code, gi int) {
		s.line(seconds, fmt.Sprintf("NVRM: Xid (PCI:0000:18:00 GPU-I:%02d): %d, pid=7, name=python, x", gi, code))
	}
	s := newScript(t)
	s.driver(1, "a")
	instance(s, 2, 31, 1)
	instance(s, 2, 31, 2)
	instance(s, 2, 94, 2)
	instance(s, 3, 31, 1)
	got := func(gi int) []string {
		g, _ := view(s.state).GPU(gpuA)
		var all []string
		for _, c := range g.InstanceConditions(gi, 0) {
			all = append(all, fmt.Sprintf("%s %s ×%d", c.Reason, c.Scope, c.Count))
		}
		return all
	}
	want := map[int][]string{
		1: {"ApplicationFault instance ×2"},
		2: {"ApplicationFault instance ×1", "ContainedMemoryError instance ×1"},
		3: nil,
	}
	for gi, want := range want {
		if diff := cmp.Diff(want, got(gi)); diff != "" {
			t.Errorf("instance %d (-want +got):\n%s", gi, diff)
		}
	}
	instance(s, 5, 119, 1) // a fault of the whole GPU, whoever was at work
	for gi := range 4 {
		if all := got(gi); len(all) == 0 || all[0] != "ResetRequired gpu ×1" {
			t.Errorf("instance %d: %v", gi, all)
		}
	}
}

func TestMadeUpInstancesAreBounded(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	for gi := range 500 {
		s.fold(Event{Source: SourceKernelLog, Kind: KindXid, Time: at(2), GPU: Device{PCI: gpuA, GPUInstance: &gi}, Xid: &Report{Code: 31}})
	}
	if n := len(s.state.GPUs[0].Conditions); n > maxConditions+1 {
		t.Errorf("%d conditions", n)
	}
}

func TestLinkTroubleShowsWhenItComesAgain(t *testing.T) {
	trouble := func(s *script, seconds float64) {
		s.fold(Event{Source: SourceKernelLog, Kind: KindLink, Time: at(seconds), GPU: Device{PCI: gpuA}, Fields: map[string]string{"text": "x"}})
	}
	s := newScript(t)
	s.driver(1, "a")
	trouble(s, 2)
	trouble(s, 3000)
	s.status(gpuA, Healthy)
	s.rest(3000 + 3601)
	if n := len(s.state.GPUs[0].Conditions); n != 0 {
		t.Errorf("%d conditions after an hour", n)
	}
	s.says()
	for i := range 3 {
		trouble(s, 10000+float64(i)*60)
	}
	s.says(gpuA + " LinkUnstable raised: NVLink trouble")
	s.status(gpuA, Degraded)
	s.rest(10120 + 3600)
	s.says(gpuA + " LinkUnstable cleared: quiet for 1h0m0s")
}

// Of some codes the driver prints one line in thirty.
func TestCodeThatTheDriverPrintsRarelyNeedsNoRepeat(t *testing.T) {
	s := newScript(t)
	s.policy = DefaultPolicy()
	row := s.policy.Reasons[ResetRequired]
	row.Repeat = Repeat{Count: 3, Within: time.Hour}
	s.policy.Reasons[ResetRequired] = row
	s.driver(1, "a")
	s.xid(2, gpuB, 109, "x")
	s.xid(2, gpuA, 119, "x")
	s.says(gpuA + " ResetRequired raised: Xid 119")
}

// Xid 43 is information by the catalogue, and any process can bring it about.
func TestInformationAboutAProcessKeepsNoFaultFromEnding(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.fold(Event{Source: SourceKernelLog, Kind: KindXid, Time: at(10), GPU: Device{PCI: gpuA}, Xid: &Report{Code: 79}})
	for n := range 60 {
		s.fold(Event{Source: SourceKernelLog, Kind: KindXid, Time: at(float64(11 + n)), GPU: Device{PCI: gpuA}, Xid: &Report{Code: 43}})
	}
	s.status(gpuA, Healthy)
}
