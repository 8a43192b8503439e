package detector

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParametersChangeWhatTheyNameAndNothingElse(t *testing.T) {
	for text, want := range map[string]Policy{
		``:                                   {RepeatOffender: RepeatOffender{3, month}, Suspicion: Suspicion{3, 24 * time.Hour, ""}},
		`"repeatOffender": {}`:               {RepeatOffender: RepeatOffender{3, month}, Suspicion: Suspicion{3, 24 * time.Hour, ""}},
		`"repeatOffender": {"incidents": 0}`: {RepeatOffender: RepeatOffender{0, month}, Suspicion: Suspicion{3, 24 * time.Hour, ""}},
		`"repeatOffender": {"incidents": 16, "within": "8760h"}, "suspicion": {"tenants": 0}`: {
			RepeatOffender: RepeatOffender{16, year}, Suspicion: Suspicion{0, 24 * time.Hour, ""},
		},
		`"repeatOffender": {"within": "1h"}, "suspicion": {"tenants": 16, "within": "1m", "namespaceLabel": "example.com/Team_1"}`: {
			RepeatOffender: RepeatOffender{3, time.Hour}, Suspicion: Suspicion{16, time.Minute, "example.com/Team_1"},
		},
		`"suspicion": {"tenants": 2, "within": "720h", "namespaceLabel": "team"}`: {
			RepeatOffender: RepeatOffender{3, month}, Suspicion: Suspicion{2, month, "team"},
		},
	} {
		p := sectionPolicy(t, text)
		if diff := cmp.Diff(want, Policy{RepeatOffender: p.RepeatOffender, Suspicion: p.Suspicion}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

func TestFaultsOfParametersAreNamedByPlaceAllAtOnce(t *testing.T) {
	label := func(key string) string { return `"suspicion": {"namespaceLabel": "` + key + `"}` }
	const notALabel = `expected the key of a label, such as example.com/team`
	for _, tt := range []struct{ text, want string }{
		{`"repeatOffender": {"incidents": -1}`, `policy.repeatOffender.incidents: -1: expected 1 to 16, or 0 to keep no GPU`},
		{`"repeatOffender": {"incidents": 17}`, `policy.repeatOffender.incidents: 17: expected 1 to 16, or 0 to keep no GPU`},
		{`"repeatOffender": {"within": "59m"}`, `policy.repeatOffender.within: 59m0s: expected 1h to 8760h`},
		{`"repeatOffender": {"within": "8761h"}`, `policy.repeatOffender.within: 8761h0m0s: expected 1h to 8760h`},
		{`"suspicion": {"tenants": 1}`, `policy.suspicion.tenants: 1: expected 2 to 16, for no tenant alone may bring it about, or 0`},
		{`"suspicion": {"tenants": 17}`, `policy.suspicion.tenants: 17: expected 2 to 16`},
		{`"suspicion": {"within": "59s"}`, `policy.suspicion.within: 59s: expected 1m to 720h`},
		{`"suspicion": {"within": "721h"}`, `policy.suspicion.within: 721h0m0s: expected 1m to 720h`},
		{label("my team"), `policy.suspicion.namespaceLabel: "my team": ` + notALabel},
		{label("/team"), notALabel},
		{label("example.com/"), notALabel},
		{label("Example.com/team"), notALabel},
		{label("a/b/c"), notALabel},
		{label("-team"), notALabel},
		{label(strings.Repeat("t", 64)), notALabel},
		{label(strings.Repeat("p", 254) + "/team"), notALabel},
		{
			`"rows": [{"xid": 0, "ignore": true}], "repeatOffender": {"incidents": 17}, "suspicion": {"tenants": 1}`,
			"policy.rows[0].xid: 0: expected 1 to 999\npolicy.repeatOffender.incidents: 17: expected 1 to 16, or 0 to keep no GPU\npolicy.suspicion.tenants: 1",
		},
	} {
		p, err := section(t, tt.text).Policy()
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.80s:\n%v\nwant it to say\n%s", tt.text, err, tt.want)
		}
		if p.Digest() != DefaultPolicy().Digest() {
			t.Errorf("%.80s: refused, and taken all the same", tt.text)
		}
	}
}

func TestDigestCoversTheParameters(t *testing.T) {
	met := map[string]string{}
	for _, text := range []string{
		``, `"repeatOffender": {"incidents": 4}`, `"repeatOffender": {"within": "24h"}`, `"suspicion": {"tenants": 4}`, `"suspicion": {"within": "1h"}`,
		`"suspicion": {"namespaceLabel": "team"}`, `"rows": [{"reason": "LinkUnstable", "repeat": {"count": 4}}]`,
		`"rows": [{"reason": "LinkUnstable", "repeat": {"within": "2h"}}]`, `"rows": [{"reason": "LinkUnstable", "repeat": {"count": 0}}]`,
	} {
		digest := sectionPolicy(t, text).Digest()
		if other, twice := met[digest]; twice {
			t.Errorf("%q and %q have one digest", text, other)
		}
		met[digest] = text
	}
	if sectionPolicy(t, `"repeatOffender": {"incidents": 3}, "source": "here"`).Digest() != DefaultPolicy().Digest() {
		t.Error("the same decisions have two digests")
	}
}

func TestRowSaysHowOftenAFaultMustBeTold(t *testing.T) {
	for row, want := range map[string]Repeat{
		`{"reason": "LinkUnstable", "quiet": "2h"}`:                                          {3, time.Hour},
		`{"reason": "LinkUnstable", "repeat": {"count": 5}}`:                                 {5, time.Hour},
		`{"reason": "LinkUnstable", "repeat": {"within": "10m"}}`:                            {3, 10 * time.Minute},
		`{"reason": "LinkUnstable", "repeat": {"count": 0}}`:                                 {},
		`{"reason": "LinkUnstable", "repeat": {"count": 1}}`:                                 {},
		`{"reason": "LinkUnstable", "repeat": {"count": 0}, "hold": "1m"}`:                   {},
		`{"reason": "ContainedMemoryError", "repeat": {"count": 100, "within": "1s"}}`:       {100, time.Second},
		`{"reason": "ContainedMemoryError", "repeat": {"count": 2, "within": "24h"}}`:        {2, 24 * time.Hour},
		`{"reason": "ContainedMemoryError", "repeat": {"count": 0}, "effect": "NoSchedule"}`: {},
	} {
		p := policyOf(t, row)
		if got := p.Reasons[p.Rows[0].Reason].Repeat; got != want {
			t.Errorf("%s: %+v, want %+v", row, got, want)
		}
	}
}

func TestFaultIsSeenWhenItWasToldOftenEnough(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.takes(2, `{"reason": "DriverWarning", "repeat": {"count": 3, "within": "10m"}}`)
	s.xid(10, gpuA, 8, "x")
	s.xid(20, gpuA, 8, "x")
	s.xid(621, gpuA, 8, "x") // too late for the two before
	s.xid(630, gpuA, 8, "x")
	s.says()
	s.xid(640, gpuA, 8, "x")
	s.says(gpuA + " DriverWarning raised: Xid 8")
}

// What is so at present is not told again and again, nor is what the driver
// prints one time in thirty.
func TestFactsAndRateLimitedCodesNeedNoRepeat(t *testing.T) {
	const row = `{"reason": "ResetRequired", "repeat": {"count": 3, "within": "1h"}}`
	s := newScript(t)
	s.driver(1, "a")
	s.takes(2, row)
	s.xid(3, gpuA, 109, "x")
	s.says()
	s.gpu(4, gpuA, KindRecoveryAction, map[string]string{"action": "1"})
	s.says(gpuA + " ResetRequired raised: recovery action gpu-reset")

	s = newScript(t)
	s.driver(1, "a")
	s.takes(2, row)
	s.xid(3, gpuA, 109, "x")
	s.xid(4, gpuA, 119, "x")
	s.says(gpuA + " ResetRequired raised: Xid 119")
}

func TestFaultThatWaitsForRepeatsFollowsTheNewCount(t *testing.T) {
	row := func(count int) string {
		return fmt.Sprintf(`{"reason": "UncorrectableMemory", "repeat": {"count": %d, "within": "1h"}}`, count)
	}
	s := newScript(t)
	s.driver(1, "a")
	s.takes(2, row(5))
	s.xid(3, gpuA, 95, "x")
	s.xid(4, gpuA, 95, "x")
	before := s.stands(gpuA)
	s.takes(5, row(9))
	s.takes(6, row(5))
	if diff := cmp.Diff(before, s.stands(gpuA)); diff != "" {
		t.Errorf("after the count came back (-want +got):\n%s", diff)
	}
	s.says()
	s.takes(7, row(2))
	s.says(gpuA + " UncorrectableMemory raised: Xid 95: policy")
	if g := s.state.GPUs[0]; len(g.Offences) != 1 {
		t.Errorf("%d incidents count against it, want 1", len(g.Offences))
	}
	// What was seen stays so.
	s.takes(8, row(9))
	s.says()
	s.status(gpuA, Unhealthy)
}

// offending is a GPU that is kept for its third incident.
func offending(t *testing.T) *script {
	t.Helper()
	s := newScript(t)
	s.driver(1, "a")
	s.incident(100, gpuA, 95, "b")
	s.incident(10*day, gpuA, 74, "c")
	s.told = nil
	s.xid(20*day, gpuA, 79, "x")
	s.says(gpuA + " GPULost raised: Xid 79: incident 3 within 30 days, stays until it is cleared by hand")
	return s
}

func TestRepeatOffenderFollowsTheNewLimitAndTheOldOneAgain(t *testing.T) {
	for _, off := range []string{`"repeatOffender": {"incidents": 0}`, `"repeatOffender": {"incidents": 4}`, `"repeatOffender": {"within": "168h"}`} {
		s := offending(t)
		before := s.stands(gpuA)
		s.takesSection(20*day+1, off)
		if c := s.stands(gpuA); c.Sticky {
			t.Errorf("%s: still kept", off)
		}
		s.says()
		s.takesSection(20*day+2, ``)
		s.says(gpuA + " GPULost raised: policy: incident 3 within 30 days, stays until it is cleared by hand")
		if diff := cmp.Diff(before, s.stands(gpuA)); diff != "" {
			t.Errorf("%s: after the default came back (-want +got):\n%s", off, diff)
		}
		// Kept no more, it ends by its own evidence.
		s.takesSection(20*day+3, off)
		s.driver(20*day+10, "d")
		s.told = nil
		s.rest(20*day + 45)
		s.says(gpuA + " GPULost cleared: driver was loaded again")
		// It is not forgiven: the next is the fourth.
		s.takesSection(20*day+50, ``)
		s.told = nil
		s.xid(20*day+60, gpuA, 79, "x")
		s.says(gpuA + " GPULost raised: Xid 79: incident 4 within 30 days, stays until it is cleared by hand")
	}
}

func TestRepeatOffenderThatIsWellEndsWhenTheLimitIsTurnedOff(t *testing.T) {
	s := offending(t)
	s.driver(20*day+10, "d")
	s.rest(21 * day)
	s.says()
	s.takesSection(21*day+1, `"repeatOffender": {"incidents": 0}`)
	s.says(gpuA + " GPULost cleared: driver was loaded again")
	s.status(gpuA, Healthy)
}

func TestLowerLimitKeepsTheIncidentThatStands(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.incident(100, gpuA, 95, "b")
	s.told = nil
	s.xid(200, gpuA, 95, "x")
	s.xid(201, gpuA, 74, "x") // a part of it
	s.xid(202, gpuB, 95, "x")
	s.takesSection(210, `"repeatOffender": {"incidents": 2}`)
	s.says(gpuA+" UncorrectableMemory raised: Xid 95", gpuA+" LinkFault raised: Xid 74", gpuB+" UncorrectableMemory raised: Xid 95",
		gpuA+" UncorrectableMemory raised: policy: incident 2 within 30 days, stays until it is cleared by hand")
	s.driver(220, "c")
	s.rest(1000)
	if c := s.stands(gpuA); c.Reason != UncorrectableMemory || !c.Sticky {
		t.Errorf("%+v", c)
	}
	s.status(gpuB, Healthy)
	s.fold(Event{Source: SourceHand, Kind: KindClear, Time: at(1001), GPU: Device{PCI: gpuA}})
	s.status(gpuA, Healthy)
}

func TestSuspicionGoesByTheConfiguredNumberAndTime(t *testing.T) {
	s := newScript(t)
	s.driver(1, "a")
	s.takesSection(2, `"suspicion": {"tenants": 2, "within": "10m"}`)
	s.tenant(10, "a/x", 31)
	s.tenant(611, "b/x", 31)
	s.status(gpuA, Healthy)
	s.tenant(700, "c/x", 31)
	s.status(gpuA, Degraded)
	// None is suspected any more, and what stands ends.
	s.takesSection(701, `"suspicion": {"tenants": 0}`)
	if last := s.told[len(s.told)-1]; last != gpuA+" SuspectedByTenants cleared: policy" {
		t.Errorf("told %q", last)
	}
	for i := range 10 {
		s.tenant(float64(710+i), fmt.Sprintf("ns-%d/x", i), 31)
	}
	s.status(gpuA, Healthy)
}

// A namespace and the tenant that it belongs to are one.
func TestAnotherLabelForgetsTheTenantsSoFar(t *testing.T) {
	const labelled = `"suspicion": {"tenants": 2, "namespaceLabel": "example.com/team"}`
	of := func(tenant string) Event {
		return Event{
			Source: SourceKernelLog, Kind: KindXid, Time: at(20), GPU: Device{PCI: gpuA}, Xid: &Report{Code: 31}, Holder: &Holder{Pod: "a/x", Tenant: tenant},
		}
	}
	s := newScript(t)
	s.driver(1, "a")
	s.takesSection(2, `"suspicion": {"tenants": 2}`)
	s.tenant(10, "a/x", 31)
	s.takesSection(11, labelled)
	s.fold(of("team-a"))
	s.status(gpuA, Healthy)
	s.takesSection(21, labelled+`, "repeatOffender": {"incidents": 4}`)
	s.fold(of("team-b"))
	if last := s.told[len(s.told)-1]; last != gpuA+" SuspectedByTenants raised: Xid 31 of 2 tenants within 24h0m0s" {
		t.Errorf("told %q", last)
	}
}

// ruled is a history that other parameters would tell otherwise.
func ruled(t *testing.T) []Event {
	t.Helper()
	var events []Event
	add := func(seconds float64, e Event) {
		e.Boot, e.Time, e.Mono = "boot-1", at(seconds), time.Hour+time.Duration(seconds*float64(time.Second))
		e.ID = fmt.Sprintf("boot-1/%s/%d", e.Source, len(events)+1)
		events = append(events, e)
	}
	xid := func(seconds float64, code int, pod string) {
		add(seconds, Event{Source: SourceKernelLog, Kind: KindXid, GPU: Device{PCI: gpuA}, Xid: &Report{Code: code}, Holder: &Holder{Pod: pod}})
	}
	takes := func(seconds float64, text string) { add(seconds, policyEvent(sectionPolicy(t, text))) }
	load := func(seconds float64, load string) {
		add(seconds, Event{Source: SourceState, Kind: KindDriverLoaded, Fields: map[string]string{"version": "570.1", "load": load, "ago": "500ms"}})
		add(seconds, Event{Source: SourceState, Kind: KindGPUFound, GPU: Device{PCI: gpuA}, Fields: map[string]string{"index": "0"}})
		add(seconds, Event{Source: SourceState, Kind: KindFresh, GPU: Device{PCI: gpuA}})
	}
	add(0, Event{Source: SourceDaemon, Kind: KindBoot})
	takes(0, `"repeatOffender": {"incidents": 2, "within": "1h"}, "suspicion": {"tenants": 2, "within": "1m"},
		"rows": [{"reason": "DriverWarning", "repeat": {"count": 2, "within": "1m"}}]`)
	load(1, "a")
	xid(10, 31, "a/x")
	xid(20, 31, "b/x") // suspected
	xid(30, 8, "")
	xid(40, 8, "") // seen
	xid(50, 95, "")
	load(60, "b")
	xid(100, 95, "") // kept
	load(200, "c")
	takes(300, `"repeatOffender": {"incidents": 0}, "suspicion": {"tenants": 0}`) // ended, both
	xid(310, 95, "")
	load(320, "d")
	takes(400, ``)
	xid(410, 95, "") // the fourth
	load(420, "e")
	add(9000, Event{Source: SourceState, Kind: KindFresh, GPU: Device{PCI: gpuA}})
	return events
}

func TestParametersAreReplayedFromTheEventsAlone(t *testing.T) {
	var told []string
	for _, tr := range agreed(t, ruled(t)) {
		if tr.Status != Noted && tr.Condition != ApplicationFault {
			told = append(told, fmt.Sprintf("%v %s %s: %s", tr.Time.Sub(at(0)), tr.Condition, tr.Status, tr.Cause))
		}
	}
	want := []string{
		"20s SuspectedByTenants raised: Xid 31 in 2 namespaces within 1m0s",
		"40s DriverWarning raised: Xid 8",
		"50s UncorrectableMemory raised: Xid 95",
		"1m30s UncorrectableMemory cleared: driver was loaded again",
		"1m40s UncorrectableMemory raised: Xid 95: incident 2 within 1h0m0s, stays until it is cleared by hand",
		"5m0s SuspectedByTenants cleared: policy",
		"5m0s UncorrectableMemory cleared: driver was loaded again",
		"5m10s UncorrectableMemory raised: Xid 95",
		"5m50s UncorrectableMemory cleared: driver was loaded again",
		"6m50s UncorrectableMemory raised: Xid 95: incident 4 within 30 days, stays until it is cleared by hand",
		"1h0m40s DriverWarning cleared: quiet for 1h0m0s",
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("(-want +told):\n%s", diff)
	}
}

// States and trails from before there were parameters have none.
func TestStateAndTrailWithoutParametersAreRead(t *testing.T) {
	saved, err := DecodeSaved([]byte(`{"state": {"seq": 7, "policy": "0123456789abcdef", "policyRows": [{"xid": 92, "ignore": true}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := policyOf(t, `{"xid": 92, "ignore": true}`)
	if diff := cmp.Diff(want, DefaultPolicy().inForce(saved.State)); diff != "" {
		t.Errorf("of the state (-want +got):\n%s", diff)
	}
	entry, err := DecodeEntry([]byte(`{"event": {"id": "boot-1/daemon/1", "source": "daemon", "kind": "Policy", "time": "2026-11-21T12:00:00Z",
		"boot": "boot-1", "fields": {"digest": "0123456789abcdef"}, "policy": [{"xid": 92, "ignore": true}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	s, _, _ := fold(&State{}, DefaultPolicy(), *entry.Event)
	if diff := cmp.Diff(want, DefaultPolicy().inForce(s)); diff != "" {
		t.Errorf("of the trail (-want +got):\n%s", diff)
	}
	if data, err := json.Marshal(saved.State); err != nil || strings.Contains(string(data), "policyParameters") {
		t.Errorf("a state without them is written with them: %s, %v", data, err)
	}
}
