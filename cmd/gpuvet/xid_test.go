package main

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"gpuvet.dev/detector"
	"gpuvet.dev/detector/xid"
)

func TestXidsAreExplained(t *testing.T) {
	for _, code := range []string{"79", "45", "154", "145", "63"} {
		golden(t, "xid-"+code+".txt", output(t, "", "xid", code))
	}
}

func TestXidListHasTheWholeCatalogue(t *testing.T) {
	var got []string
	for line := range strings.Lines(output(t, "", "xid")) {
		got = append(got, strings.Fields(line)[0])
	}
	if len(got) != 177 || got[0] != "XID" {
		t.Fatalf("%d lines, first %q; want a head and 176 codes", len(got), got[0])
	}
	for i, code := range got[1:] {
		if code != strconv.Itoa(i+1) {
			t.Errorf("line %d is of Xid %s", i+1, code)
		}
	}
}

// What is said of each code is what the fold makes of it.
func TestExplanationAgreesWithTheDecision(t *testing.T) {
	policy := detector.DefaultPolicy()
	for _, e := range xid.All() {
		said := does(policy, e.Code, policy.Xids[e.Code].Verdict)
		if e.Code == 154 || e.Code >= 144 && e.Code <= 150 {
			continue // the line decides; below
		}
		raised := decided(e.Code, nil, nil)
		want := "counts and records it"
		switch {
		case raised == nil:
		case raised.Effect.Fences():
			want = "fences the GPU as " + string(raised.Condition) + " (" + string(raised.Effect) + ", gpuvet.dev/"
		case raised.Class == detector.Application && e.Code == 45:
			want = "alone it is the application's"
		case raised.Class == detector.Application:
			want = "blames the workload"
		default:
			want = "Degraded (" + string(raised.Condition) + ")"
		}
		if !strings.Contains(said, want) {
			t.Errorf("Xid %d: explained as %q, want it to say %q", e.Code, said, want)
		}
		if raised != nil && !raised.Effect.Fences() && strings.HasPrefix(said, "fences") {
			t.Errorf("Xid %d: explained as %q, but nothing is fenced", e.Code, said)
		}
	}
}

func TestCodesWhoseLineDecidesAreExplainedAsThat(t *testing.T) {
	policy := detector.DefaultPolicy()
	for code := 144; code <= 150; code++ {
		if said := does(policy, code, policy.Xids[code].Verdict); !strings.Contains(said, "LinkFault") {
			t.Errorf("Xid %d: %q", code, said)
		}
		if r := decided(code, nil, &xid.NVLink{Fatal: true}); r == nil || r.Condition != detector.LinkFault || !r.Effect.Fences() {
			t.Errorf("Xid %d, fatal: %+v", code, r)
		}
		if r := decided(code, nil, &xid.NVLink{}); r != nil && r.Effect.Fences() {
			t.Errorf("Xid %d, not fatal: %+v", code, r)
		}
	}
	for to, fences := range map[int]bool{0: false, 1: true, 2: true, 3: true, 4: true} {
		r := decided(154, &xid.Action{To: to}, nil)
		if got := r != nil && r.Effect.Fences(); got != fences {
			t.Errorf("Xid 154 to %d: %+v", to, r)
		}
	}
}

// decided is what one report of a code raises; nil if nothing.
func decided(code int, action *xid.Action, link *xid.NVLink) *detector.Transition {
	e := detector.Event{
		ID: "boot/kmsg/1", Source: "kmsg", Kind: detector.KindXid, Time: time.Unix(1, 0), Boot: "boot", Mono: time.Second,
		GPU: detector.Device{PCI: "0000:3b:00.0"}, Xid: &detector.Report{Code: code, Action: action, NVLink: link},
	}
	one := func(yield func(detector.Event, error) bool) { yield(e, nil) }
	for t, err := range detector.Replay(detector.DefaultPolicy(), one) {
		if err == nil && t.Status == detector.Raised {
			return &t
		}
	}
	return nil
}
