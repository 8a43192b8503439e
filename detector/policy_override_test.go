package detector

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// section decodes the section policy as the file and the trail have it.
func section(t *testing.T, text string) PolicyConfig {
	t.Helper()
	var c PolicyConfig
	decoder := json.NewDecoder(strings.NewReader("{" + text + "}"))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c
}

func rowsOf(t *testing.T, text string) []PolicyRow {
	t.Helper()
	return section(t, `"rows": [`+text+`]`).Rows
}

// sectionPolicy is the policy of a whole section, policyOf that of some rows.
func sectionPolicy(t *testing.T, text string) *Policy {
	t.Helper()
	p, err := section(t, text).Policy()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func policyOf(t *testing.T, rows string) *Policy {
	t.Helper()
	return sectionPolicy(t, `"rows": [`+rows+`]`)
}

// What the systems in use disagree on is decided by the catalogue and by the
// rules that are written down, and the row says why.
func TestDisputedXidsAreDecidedAndSayWhy(t *testing.T) {
	info := Verdict{Class: Information, Action: ActWatch}
	app := Verdict{Reason: ApplicationFault, Class: Application, Action: ActRestartApp}
	want := map[int]XidRow{
		42:  {Verdict: info, Source: "catalogue CONTACT_SUPPORT(unused)", Note: "gpud"},
		45:  {Verdict: app, Source: "catalogue WORKFLOW_XID_45", Note: "never condemns"},
		48:  {Verdict: Verdict{UncorrectableMemory, Hardware, NoSchedule, ActResetGPU}, Source: "catalogue WORKFLOW_XID_48", Note: "whole node"},
		56:  {Verdict: info, Source: "catalogue CONTACT_SUPPORT(unused)", Note: "Azure"},
		57:  {Verdict: info, Source: "catalogue CONTACT_SUPPORT(unused)", Note: "Azure"},
		58:  {Verdict: info, Source: "catalogue CONTACT_SUPPORT(unused)", Note: "Azure"},
		61:  {Verdict: info, Source: "catalogue CONTACT_SUPPORT(unused)", Note: "gpud"},
		63:  {Verdict: Verdict{Class: Information, Action: ActNone}, Source: "catalogue IGNORE", Note: "EKS"},
		68:  {Verdict: app, Source: "catalogue RESTART_APP, category software", Note: "gpud"},
		69:  {Verdict: app, Source: "catalogue RESTART_APP, category user-app", Note: "Azure"},
		80:  {Verdict: app, Source: "catalogue RESTART_APP, category user-app", Note: "Azure"},
		92:  {Verdict: Verdict{Class: Information, Action: ActNone}, Source: "catalogue IGNORE", Note: "Azure"},
		94:  {Verdict: Verdict{ContainedMemoryError, Hardware, NoEffect, ActRestartApp}, Source: "catalogue RESTART_APP, category hardware", Note: "95 or 154 promotes"},
		109: {Verdict: Verdict{ResetRequired, Driver, NoSchedule, ActResetGPU}, Source: "catalogue RESET_GPU", Note: "k8s-device-plugin"},
	}
	p := DefaultPolicy()
	for code, want := range want {
		got := p.Xids[code]
		if !strings.Contains(got.Note, want.Note) {
			t.Errorf("Xid %d: note %q does not say %q", code, got.Note, want.Note)
		}
		got.Note = want.Note
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Xid %d (-want +got):\n%s", code, diff)
		}
	}
	if got := slices.Sorted(maps.Keys(disagreements)); !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
		t.Errorf("notes on %v", got)
	}
	for code, x := range p.Xids {
		if x.Source == "" {
			t.Errorf("Xid %d has no source", code)
		}
	}
}

// A row tells what a sign without a code does: it is what the fold does.
func TestRowsAgreeWithWhatTheFoldRaises(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	for kind, fields := range map[Kind]map[string]string{
		KindUnresponsive: nil, KindRemapPending: {"pending": "true"}, KindRemapFailed: {"failed": "true"}, KindGPUMissing: nil,
	} {
		s.gpu(2, gpuA, kind, fields)
	}
	s.fold(Event{Source: SourceKernelLog, Kind: KindInit, Time: at(2), GPU: Device{PCI: gpuB}})
	s.fold(Event{Source: SourceKernelLog, Kind: KindSXid, Time: at(2), SXid: &Report{Code: 1, Severity: "Fatal"}})
	s.fold(Event{Source: SourceKernelLog, Kind: KindSXid, Time: at(2), SXid: &Report{Code: 2}})
	s.fold(Event{Source: SourceState, Kind: KindDriverStuck, Time: at(3)})
	seen := slices.Clone(s.state.Node)
	for _, g := range s.state.GPUs {
		seen = append(seen, g.Conditions...)
	}
	if len(seen) != 8 {
		t.Fatalf("raised %d: %+v", len(seen), seen)
	}
	for _, c := range seen {
		row := s.policy.Reasons[c.Reason]
		want := Verdict{c.Reason, row.Class, row.Effect, row.Action}
		if diff := cmp.Diff(want, Verdict{c.Reason, c.Class, c.Effect, c.Action}); diff != "" {
			t.Errorf("(-row +raised):\n%s", diff)
		}
	}
	for code, x := range s.policy.Xids {
		if x.Reason == "" {
			continue
		}
		row := s.policy.Reasons[x.Reason]
		if x.Effect != row.Effect {
			t.Errorf("Xid %d has effect %q, its reason %s %q", code, x.Effect, x.Reason, row.Effect)
		}
	}
}

func TestRowOfAReasonReachesItsCodesAndThatOfACodeGoesFirst(t *testing.T) {
	p := policyOf(t, `{"xid": 119, "effect": "None", "source": "row 0"},
		{"reason": "ResetRequired", "effect": "NoExecute", "hold": "5s", "source": "row 1"}`)
	if row := p.Reasons[ResetRequired]; row.Effect != NoExecute || row.Hold != 5*time.Second || row.Source != "row 1" || row.Clear != ClearReset {
		t.Errorf("row: %+v", row)
	}
	for code, want := range map[int]XidRow{
		109: {Verdict: Verdict{ResetRequired, Driver, NoExecute, ActResetGPU}, Source: "row 1", Note: disagreements[109]},
		119: {Verdict: Verdict{ResetRequired, Driver, None, ActResetGPU}, Source: "row 0"},
		79:  DefaultPolicy().Xids[79],
	} {
		if diff := cmp.Diff(want, p.Xids[code]); diff != "" {
			t.Errorf("Xid %d (-want +got):\n%s", code, diff)
		}
	}
}

func TestCodeTakesWhatItsNewReasonSays(t *testing.T) {
	p := policyOf(t, `{"xid": 63, "reason": "ResetRequired"}, {"xid": 185, "reason": "HardwareWarning", "action": "watch"},
		{"xid": 8, "effect": "NoSchedule"}, {"xid": 31, "reason": "HardwareWarning", "effect": "NoSchedule"}`)
	for code, want := range map[int]Verdict{
		63:  {ResetRequired, Driver, NoSchedule, ActResetGPU},
		185: {HardwareWarning, Hardware, NoEffect, ActWatch},
		8:   {DriverWarning, Driver, NoSchedule, ActRestartApp},
		31:  {HardwareWarning, Hardware, NoSchedule, ActRestartApp},
	} {
		if diff := cmp.Diff(want, p.Xids[code].Verdict); diff != "" {
			t.Errorf("Xid %d (-want +got):\n%s", code, diff)
		}
	}
	if !slices.Contains(p.Alertable(), 63) {
		t.Error("Xid 63 fences and has no counter from the start")
	}
	for reason, want := range map[Reason]TaintKey{DriverWarning: TaintResetRequired, HardwareWarning: TaintResetRequired, LinkWarning: ""} {
		if got := p.Reasons[reason].Taint; got != want {
			t.Errorf("%s fences by key %q, want %q", reason, got, want)
		}
	}
}

func TestFaultsOfRowsAreNamedByPlaceAllAtOnce(t *testing.T) {
	for _, tt := range []struct{ rows, want string }{
		{`{"class": "hardware"}`, `policy.rows[0]: no key: expected reason or xid`},
		{`{"reason": "Resetrequired", "class": "hardware"}`, `policy.rows[0].reason: "Resetrequired": expected ApplicationFault, `},
		{`{"xid": 0, "ignore": true}`, `policy.rows[0].xid: 0: expected 1 to 999`},
		{`{"xid": 1000, "ignore": true}`, `policy.rows[0].xid: 1000: expected 1 to 999`},
		{`{"xid": 154, "ignore": true}`, `policy.rows[0].xid: 154 is the driver's own word`},
		{`{"xid": 145, "effect": "None"}`, `policy.rows[0].xid: 145 is decided by the fields of its line: expected ignore alone`},
		{`{"xid": 31, "ignore": true}, {"xid": 31, "class": "hardware"}`, `policy.rows[1]: Xid 31 has a row already, policy.rows[0]`},
		{`{"reason": "GPULost", "ignore": true}, {"reason": "GPULost", "hold": "1s"}`, `policy.rows[1]: GPULost has a row already`},
		{`{"reason": "GPULost"}`, `policy.rows[0]: changes nothing: expected class, effect`},
		{`{"reason": "GPULost", "ignore": true, "hold": "1s"}`, `policy.rows[0]: ignore: true beside other keys`},
		{`{"reason": "GPULost", "action": "watch"}`, `policy.rows[0].action: watch: expected a row for an Xid`},
		{`{"xid": 79, "hold": "1s"}`, `policy.rows[0]: hold, repeat, clear, quiet or settle for Xid 79: expected a row for its reason`},
		{`{"reason": "GPULost", "class": "hardwar"}`, `policy.rows[0].class: "hardwar": expected application, hardware, link, driver, fabric or information`},
		{`{"reason": "GPULost", "effect": "noschedule"}`, `policy.rows[0].effect: "noschedule": expected None, NoSchedule or NoExecute`},
		{`{"reason": "GPULost", "clear": "never"}`, `policy.rows[0].clear: "never": expected reset, boot, answer, level, quiet or hand`},
		{`{"xid": 79, "action": "pray"}`, `policy.rows[0].action: "pray": expected none, watch`},
		{`{"reason": "GPULost", "hold": "-1s"}`, `policy.rows[0].hold: -1s: expected a duration from 0s`},
		{`{"reason": "GPULost", "clear": "quiet"}`, `policy.rows[0].clear: quiet without a time: expected quiet beside it`},
		{`{"reason": "GPULost", "quiet": "1h"}`, `policy.rows[0].quiet: 1h0m0s without clear: quiet`},
		{`{"reason": "GPULost", "clear": "quiet", "quiet": "0s"}`, `policy.rows[0].quiet: 0s: expected a duration of more than zero`},
		{`{"reason": "Unmonitored", "ignore": true}`, `policy.rows[0].reason: Unmonitored marks a pause`},
		{`{"xid": 94, "repeat": {"count": 2, "within": "1h"}}`, `policy.rows[0]: hold, repeat, clear, quiet or settle for Xid 94`},
		{`{"reason": "LinkFault", "repeat": {"count": 101, "within": "1h"}}`, `policy.rows[0].repeat.count: 101: expected 2 to 100, or 0`},
		{`{"reason": "LinkFault", "repeat": {"count": -1, "within": "1h"}}`, `policy.rows[0].repeat.count: -1: expected 2 to 100, or 0`},
		{`{"reason": "LinkFault", "repeat": {"count": 3}}`, `policy.rows[0].repeat.count: 3 without a time: expected within beside it`},
		{`{"reason": "LinkFault", "repeat": {"within": "1h"}}`, `policy.rows[0].repeat.within: 1h0m0s without a count: expected count beside it`},
		{`{"reason": "LinkFault", "repeat": {"count": 1, "within": "1h"}}`, `policy.rows[0].repeat.within: 1h0m0s without a count: expected count beside it`},
		{`{"reason": "LinkFault", "repeat": {"count": 3, "within": "0s"}}`, `policy.rows[0].repeat.within: 0s: expected 1s to 24h`},
		{`{"reason": "LinkUnstable", "repeat": {"within": "25h"}}`, `policy.rows[0].repeat.within: 25h0m0s: expected 1s to 24h`},
		{`{"reason": "LinkDown", "repeat": {"count": 3, "within": "1h"}}`, `policy.rows[0].repeat: LinkDown is told once, for as long as it is so: expected hold`},
		{`{"reason": "LinkUnstable", "hold": "1m"}`, `policy.rows[0]: hold 1m0s beside repeat of 3: expected one of them; repeat: {count: 0} turns the other off`},
		{`{"xid": 79, "effect": "None"}, {"reason": "GPULost", "ignore": true}`, `policy.rows[0]: Xid 79 stands for a reason that another row ignores`},
		{`{"xid": 42, "effect": "NoSchedule"}`, `policy.rows[0]: effect NoSchedule for Xid 42, which stands for no reason`},
		{strings.Repeat(`{"reason": "GPULost", "hold": "1s"},`, 256) + `{"xid": 1, "ignore": true}`, `policy.rows: 257 rows: expected at most 256`},
		{`{"xid": 0, "ignore": true}, {"reason": "X", "hold": "1s"}`, "policy.rows[0].xid: 0: expected 1 to 999\npolicy.rows[1].reason: \"X\""},
	} {
		_, err := NewPolicy(rowsOf(t, tt.rows))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.80s:\n%v\nwant it to say\n%s", tt.rows, err, tt.want)
		}
	}
}

func TestContradictionIsRefusedUnlessTheRowAllowsIt(t *testing.T) {
	for _, tt := range []struct{ row, want string }{
		{`"reason": "ApplicationFault", "effect": "NoSchedule"`, "class application with effect NoSchedule"},
		{`"reason": "ResetRequired", "class": "application"`, "class application with effect NoSchedule"},
		{`"reason": "ResetRequired", "class": "information"`, "class information with effect NoSchedule"},
		{`"reason": "ApplicationFault", "class": "hardware", "effect": "NoExecute"`, "effect NoExecute with scope workload"},
		{`"reason": "GPULost", "hold": "25h"`, "hold 25h0m0s hides the fault for more than a day"},
		{`"reason": "LinkFault", "clear": "level"`, "clear: level ends LinkFault at once"},
		{`"xid": 31, "effect": "NoExecute"`, "class application with effect NoExecute"},
		{`"xid": 79, "class": "application"`, "class application with effect NoSchedule"},
		{`"xid": 63, "reason": "HardwareWarning", "class": "information", "effect": "NoSchedule"`, "class information with effect NoSchedule"},
	} {
		p, err := NewPolicy(rowsOf(t, "{"+tt.row+"}"))
		if err == nil || !strings.Contains(err.Error(), "policy.rows[0]: "+tt.want) || !strings.Contains(err.Error(), "allowContradiction: true") {
			t.Errorf("%s: %v", tt.row, err)
		}
		if p.Digest() != DefaultPolicy().Digest() {
			t.Errorf("%s: refused, and taken all the same", tt.row)
		}
		if p = policyOf(t, "{"+tt.row+`, "allowContradiction": true}`); p.Digest() == DefaultPolicy().Digest() {
			t.Errorf("%s: allowed, and changes nothing", tt.row)
		}
	}
}

// A combination that only two rows make is found at the code's.
func TestContradictionOfTwoRowsIsFound(t *testing.T) {
	_, err := NewPolicy(rowsOf(t, `{"xid": 94, "class": "application"}, {"reason": "ContainedMemoryError", "effect": "NoSchedule"}`))
	if err == nil || !strings.Contains(err.Error(), "policy.rows[0]: class application with effect NoSchedule") {
		t.Errorf("error: %v", err)
	}
}

func TestRowsSurviveTheTrail(t *testing.T) {
	rows := rowsOf(t, `{"reason": "GPULost", "hold": "90s", "clear": "quiet", "quiet": "2h", "source": "file: a policy.rows[0]"}, {"xid": 79, "ignore": true}`)
	data, err := json.Marshal(rows)
	if err != nil {
		t.Fatal(err)
	}
	var back []PolicyRow
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rows, back); diff != "" {
		t.Errorf("(-rows +read):\n%s", diff)
	}
}

func TestDigestIsOfWhatIsDecided(t *testing.T) {
	a := policyOf(t, `{"reason": "GPULost", "hold": "1m", "source": "here"}`)
	b := policyOf(t, `{"reason": "GPULost", "hold": "60s", "source": "there", "allowContradiction": true}`)
	if a.Digest() != b.Digest() {
		t.Error("the same decisions have two digests")
	}
	if a.Digest() == DefaultPolicy().Digest() {
		t.Error("two policies have one digest")
	}
}
