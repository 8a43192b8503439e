package detector

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gpuvet.dev/detector/xid"
)

func TestCatalogueBecomesPolicy(t *testing.T) {
	verdicts := map[int]Verdict{
		8:   {DriverWarning, Driver, "", ActRestartApp},
		13:  {ApplicationFault, Application, "", ActRestartApp},
		31:  {ApplicationFault, Application, "", ActRestartApp},
		42:  {"", Information, "", ActWatch},
		43:  {"", Information, "", ActNone},
		45:  {ApplicationFault, Application, "", ActRestartApp},
		46:  {ResetRequired, Driver, NoSchedule, ActResetGPU},
		48:  {UncorrectableMemory, Hardware, NoSchedule, ActResetGPU},
		54:  {ThermalFault, Hardware, NoSchedule, ActCheckHardware},
		61:  {"", Information, "", ActWatch},
		62:  {ResetRequired, Driver, NoSchedule, ActResetGPU},
		63:  {"", Information, "", ActNone},
		64:  {UncorrectableMemory, Hardware, NoSchedule, ActResetGPU},
		68:  {ApplicationFault, Application, "", ActRestartApp},
		69:  {ApplicationFault, Application, "", ActRestartApp},
		74:  {LinkFault, Link, NoSchedule, ActResetGPU},
		78:  {DriverWarning, Driver, "", ActUpdateSoftware},
		79:  {GPULost, Hardware, NoSchedule, ActRebootNode},
		80:  {ApplicationFault, Application, "", ActRestartApp},
		92:  {"", Information, "", ActNone},
		94:  {ContainedMemoryError, Hardware, "", ActRestartApp},
		95:  {UncorrectableMemory, Hardware, NoSchedule, ActResetGPU},
		109: {ResetRequired, Driver, NoSchedule, ActResetGPU},
		119: {ResetRequired, Driver, NoSchedule, ActResetGPU},
		136: {LinkFault, Link, NoSchedule, ActResetGPU},
		140: {UncorrectableMemory, Hardware, NoSchedule, ActResetGPU},
		142: {"", Information, "", ActContactSupport},
		151: {RebootRequired, Driver, NoSchedule, ActRebootNode},
		155: {LinkFault, Link, NoSchedule, ActResetGPU},
		159: {LinkWarning, Link, "", ActWatch},
		168: {"", Information, "", ActWatch},
		171: {UncorrectableMemory, Hardware, NoSchedule, ActResetGPU},
		172: {UncorrectableMemory, Hardware, NoSchedule, ActResetGPU},
		176: {"", Information, "", ActWatch},
	}
	p := DefaultPolicy()
	for code, want := range verdicts {
		if diff := cmp.Diff(want, p.Xids[code].Verdict); diff != "" {
			t.Errorf("Xid %d (-want +got):\n%s", code, diff)
		}
	}
}

func TestEveryVerdictHasARow(t *testing.T) {
	p := DefaultPolicy()
	for code, v := range p.Xids {
		if v.Reason == "" {
			continue
		}
		row, ok := p.Reasons[v.Reason]
		switch {
		case !ok:
			t.Errorf("Xid %d: reason %s has no row", code, v.Reason)
		case v.Effect.Fences() && row.Taint == "":
			t.Errorf("Xid %d fences as %s, which has no taint key", code, v.Reason)
		case v.Effect.Fences() && (v.Class == Application || v.Class == Information):
			t.Errorf("Xid %d of class %s fences", code, v.Class)
		case row.Clear == ClearQuiet && row.Quiet == 0:
			t.Errorf("%s ends by quiet and has no time", v.Reason)
		}
	}
	if len(p.Xids) != len(xid.All()) {
		t.Errorf("%d verdicts for %d Xids", len(p.Xids), len(xid.All()))
	}
}

func TestRecoveryActionsBecomeVerdicts(t *testing.T) {
	want := []Verdict{
		{"", Driver, "", ActNone},
		{ResetRequired, Driver, NoSchedule, ActResetGPU},
		{RebootRequired, Driver, NoSchedule, ActRebootNode},
		{LinkFault, Driver, NoSchedule, ActDrainP2P},
		{ResetRequired, Driver, NoSchedule, ActDrainAndReset},
	}
	for action, want := range want {
		if diff := cmp.Diff(want, recovery(action)); diff != "" {
			t.Errorf("action %d (-want +got):\n%s", action, diff)
		}
	}
}

func TestNVLinkReportIsJudgedByItsFields(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		driver     int
		want       Verdict
	}{
		{
			"a rule that resets", "NVRM: Xid (PCI:0000:04:00): 150, MSE_WATCHDOG Fatal XC0 i0 Link 00 (0x00000000 0x00000000 0x00000000 0x00000000)", 570,
			Verdict{LinkFault, Link, NoSchedule, ActResetGPU},
		},
		{
			"no rule, fatal", "NVRM: Xid (PCI:0000:04:00): 146, NEW_UNIT Fatal XC0 i0 Link 00 (0x00000000 0x00000000 0x00000000 0x00000000)", 570,
			Verdict{LinkFault, Link, NoSchedule, ActResetGPU},
		},
		{
			"no rule, nonfatal", "NVRM: Xid (PCI:0000:04:00): 146, NEW_UNIT Nonfatal XC0 i0 Link 00 (0x00000000 0x00000000 0x00000000 0x00000000)", 570,
			Verdict{LinkWarning, Link, "", ActWatch},
		},
		{
			"a rule that waits for Xid 154: a symptom of the peer's", "NVRM: Xid (PCI:0019:01:00): 145, RLW_SRC_TRACK Nonfatal XC1 i0 Link 12 (0x040988e2 0x00000008 0x00000000 0x00000000 0x00000000 0x00000000)", 570,
			Verdict{LinkWarning, Link, "", ActRestartApp},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, ok := xid.Parse([]byte(tt.line))
			if !ok || l.NVLink == nil {
				t.Fatalf("line is not read: %+v", l)
			}
			if diff := cmp.Diff(tt.want, DefaultPolicy().Xid(FromLine(l).Xid, tt.driver)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAlertableXidsAreThoseThatFenceAndTheCommonOnes(t *testing.T) {
	codes := DefaultPolicy().Alertable()
	for _, want := range []int{13, 31, 43, 45, 48, 63, 64, 74, 79, 94, 95, 119, 120, 144, 150} {
		if !slices.Contains(codes, want) {
			t.Errorf("no Xid %d in %v", want, codes)
		}
	}
	if slices.Contains(codes, 42) || slices.Contains(codes, 68) {
		t.Errorf("too many: %v", codes)
	}
}

func TestRemedyIsTheStrongestAction(t *testing.T) {
	for _, tt := range []struct {
		actions []Action
		asked   Action // what the driver asks for
		want    Action
	}{
		{want: ActNone},
		{[]Action{ActRestartApp}, "", ActRestartApp},
		{[]Action{ActResetGPU, ActRebootNode, ActWatch}, "", ActRebootNode},
		{[]Action{ActDrainAndReset, ActResetGPU}, "", ActDrainAndReset},
		{[]Action{ActDrainAndReset}, ActResetGPU, ActResetGPU},
		{[]Action{ActResetGPU}, ActDrainAndReset, ActDrainAndReset},
		{[]Action{ActDrainAndReset, ActRebootNode}, ActResetGPU, ActRebootNode},
		{[]Action{ActContactSupport, ActRebootNode}, "", ActContactSupport},
	} {
		var conditions []Condition
		if tt.asked != "" {
			conditions = append(conditions, Condition{Reason: ResetRequired, Action: tt.asked, Fact: SourceState})
		}
		for _, a := range tt.actions {
			conditions = append(conditions, Condition{Action: a})
		}
		if got := Remedy(conditions); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.actions, got, tt.want)
		}
	}
}

func TestPolicyDigestTellsPoliciesApart(t *testing.T) {
	a, b := DefaultPolicy(), DefaultPolicy()
	if a.Digest() != b.Digest() {
		t.Error("the same policy has two digests")
	}
	row := b.Reasons[GPULost]
	row.Clear = ClearHand
	b.Reasons[GPULost] = row
	if a.Digest() == b.Digest() {
		t.Error("two policies have one digest")
	}
}
