package xid

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDecodeFollowsTheDriversLayout(t *testing.T) {
	remap154 := Decoding{Bucket: "XID_154_EVAL", Severity: "Non-fatal", Investigatory: "CONTACT_SUPPORT", Origin: "SW"}
	remapFatal := Decoding{Bucket: "RESET_GPU", Severity: "Fatal", Investigatory: "CONTACT_SUPPORT", Origin: "HW"}
	rxpipe := Decoding{Bucket: "IGNORE", Severity: "Non-fatal", Certainty: "promotable", Investigatory: "CONTACT_SUPPORT", Origin: "SW"}
	rxpipeReset := rxpipe
	rxpipeReset.Bucket = "RESET_GPU"
	signal := Decoding{Bucket: "RESET_GPU", Severity: "Link Fatal", Investigatory: "INVESTIGATE_LINK_SI", Origin: "HW"}
	peer := Decoding{Bucket: "RESET_GPU", Severity: "Link Fatal", Investigatory: "INVESTIGATE_PEER_DEVICE", Origin: "HW/SW"}
	mse := Decoding{Bucket: "RESET_GPU", Severity: "Fatal", Investigatory: "CONTACT_SUPPORT", Origin: "FW"}
	ignore := Decoding{Bucket: "IGNORE", Severity: "Non-fatal", Investigatory: "IGNORE", Origin: "HW"}
	tests := []struct {
		name string
		code int
		in   NVLink
		v1   Decoding // zero: no rule
		v2   Decoding
	}{
		{"layout of R570", 145, NVLink{Unit: "RLW_REMAP", InterruptInfo: 0x82, ErrorStatus: 0x40}, remapFatal, Decoding{}},
		{"layout of R575", 145, NVLink{Unit: "RLW_REMAP", InterruptInfo: 0x04, ErrorStatus: 0x01}, Decoding{}, remap154},
		{"other bits do not matter", 145, NVLink{Unit: "RLW_REMAP", InterruptInfo: 0x040ffc82, ErrorStatus: 0x40}, remapFatal, Decoding{}},
		{"status is part of the rule", 145, NVLink{Unit: "RLW_REMAP", InterruptInfo: 0x82, ErrorStatus: 0x41}, Decoding{}, Decoding{}},
		{"unit is part of the rule", 145, NVLink{Unit: "RLW_CTRL", InterruptInfo: 0x82, ErrorStatus: 0x40}, Decoding{}, Decoding{}},
		{"code is part of the rule", 146, NVLink{Unit: "RLW_REMAP", InterruptInfo: 0x82, ErrorStatus: 0x40}, Decoding{}, Decoding{}},
		{"promotion not asked for, V1", 145, NVLink{Unit: "RLW_RXPIPE", InterruptInfo: 0x0c2, ErrorStatus: 2}, rxpipe, Decoding{}},
		{"promotion, V1", 145, NVLink{Unit: "RLW_RXPIPE", InterruptInfo: 0x4c2, ErrorStatus: 2}, rxpipeReset, Decoding{}},
		{"promotion not asked for, V2", 145, NVLink{Unit: "RLW_RXPIPE", InterruptInfo: 0x06, ErrorStatus: 4}, Decoding{}, rxpipe},
		{"promotion, V2", 145, NVLink{Unit: "RLW_RXPIPE", InterruptInfo: 0x86, ErrorStatus: 4}, Decoding{}, rxpipeReset},
		{"any status: link down, reason 4", 149, NVLink{Unit: "NETIR_LINK_EVT", InterruptInfo: 0x004505c6, ErrorStatus: 77}, signal, Decoding{}},
		{"link down, reason 0x21", 149, NVLink{Unit: "NETIR_LINK_EVT", InterruptInfo: 0x021425c6}, peer, Decoding{}},
		{"link down by its new name", 149, NVLink{Unit: "NETIR_LINK_DOWN", InterruptInfo: 0x02142511}, Decoding{}, peer},
		{"unit by both names", 146, NVLink{Unit: "TLW_RX/TLW_RX_PIPE0", InterruptInfo: 0x0a, ErrorStatus: 1}, Decoding{}, ignore},
		{"unit by a digit", 146, NVLink{Unit: "TLW_RX_PIPE1", InterruptInfo: 0x0b, ErrorStatus: 1}, Decoding{}, ignore},
		{"unit with a blank", 150, NVLink{Unit: "MSE Degraded", ErrorStatus: 0xffffffff}, mse, mse},
		{"watchdog", 150, NVLink{Unit: "MSE_WATCHDOG"}, mse, mse},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for major, want := range map[int]Decoding{570: test.v1, 574: test.v1, 575: test.v2, 610: test.v2} {
				got, ok := test.in.Decode(test.code, major)
				fits := want != Decoding{}
				if !fits {
					want = Decoding{Severity: "Non-fatal", Undecoded: true}
				}
				if diff := cmp.Diff(want, got); diff != "" || ok != fits {
					t.Errorf("driver %d: %v (-want +got):\n%s", major, ok, diff)
				}
			}
		})
	}
}

func TestUnknownDriverIsDecodedByTheLayoutThatFits(t *testing.T) {
	for _, test := range []struct {
		code int
		in   NVLink
		want string
	}{
		{145, NVLink{Unit: "RLW_REMAP", InterruptInfo: 0x82, ErrorStatus: 0x40}, "RESET_GPU"},
		{145, NVLink{Unit: "RLW_REMAP", InterruptInfo: 0x04, ErrorStatus: 0x01}, "XID_154_EVAL"},
		{145, NVLink{Unit: "RLW_REMAP", InterruptInfo: 0x83}, ""},
	} {
		if d, ok := test.in.Decode(test.code, 0); d.Bucket != test.want || ok != (test.want != "") {
			t.Errorf("%+v is %+v, %v", test.in, d, ok)
		}
	}
}

func TestNoErrorFitsBothLayoutsWithDifferentResults(t *testing.T) {
	for _, older := range NVLinkRules() {
		for _, newer := range NVLinkRules() {
			unit := older.names(newer.UnitV1) || older.names(newer.UnitV2)
			if older.Code != newer.Code || !unit || older.Decoding == newer.Decoding && older.PromotedBucket == newer.PromotedBucket {
				continue
			}
			shared := len(older.Status) == 0 || len(newer.Status) == 0
			for _, status := range older.Status {
				shared = shared || slices.Contains(newer.Status, status)
			}
			for _, v1 := range []Pattern{older.IntrV1, older.PromoteV1} {
				for _, v2 := range []Pattern{newer.IntrV2, newer.PromoteV2} {
					if both := v1.Care & v2.Care; shared && both != 0 && v1.Value&both == v2.Value&both {
						t.Errorf("a word fits both %+v and %+v", older, newer)
					}
				}
			}
		}
	}
}

func TestEveryRuleIsReachedByItsOwnRegisters(t *testing.T) {
	for i, rule := range NVLinkRules() {
		for _, v2 := range []bool{false, true} {
			unit, intr, major := rule.UnitV1, rule.IntrV1, 570
			if v2 {
				unit, intr, major = rule.UnitV2, rule.IntrV2, 575
			}
			status := uint32(0xabad1dea) // a rule without statuses takes any
			if len(rule.Status) > 0 {
				status = rule.Status[len(rule.Status)-1]
			}
			got, ok := NVLink{Unit: unit, InterruptInfo: intr.Value, ErrorStatus: status}.Decode(rule.Code, major)
			got.PeerSide = false // is no part of the rule
			if diff := cmp.Diff(rule.Decoding, got); !ok || diff != "" {
				t.Errorf("rule %d, driver %d: %v (-want +got):\n%s", i, major, ok, diff)
			}
		}
	}
}

// Every row of the table as the driver would print it: each status that it names,
// or any if it names none, each name of the unit, and the bits that do not
// matter all clear and all set.
func TestEveryRuleIsDecodedFromItsLine(t *testing.T) {
	lines := 0
	for i, rule := range NVLinkRules() {
		statuses := rule.Status
		if len(statuses) == 0 {
			statuses = []uint32{0, 1, 0xabad1dea}
		}
		for _, layout := range []struct {
			major         int
			unit          string
			intr, promote Pattern
		}{
			{570, rule.UnitV1, rule.IntrV1, rule.PromoteV1},
			{575, rule.UnitV2, rule.IntrV2, rule.PromoteV2},
		} {
			units := []string{layout.unit}
			if rule.UnitV1 != rule.UnitV2 {
				units = append(units, rule.UnitV1+"/"+rule.UnitV2)
			}
			for _, unit := range units {
				for _, status := range statuses {
					for _, word := range []uint32{layout.intr.Value, layout.intr.Value | ^layout.intr.Care} {
						want := rule.Decoding
						if layout.promote.Match(word) {
							want.Bucket = rule.PromotedBucket
						}
						checkDecoded(t, i, rule.Code, layout.major, unit, word, status, want)
						lines++
					}
					if layout.promote.Care == 0 {
						continue
					}
					for _, word := range []uint32{layout.promote.Value, layout.promote.Value | ^layout.promote.Care} {
						want := rule.Decoding
						want.Bucket = rule.PromotedBucket
						checkDecoded(t, i, rule.Code, layout.major, unit, word, status, want)
						lines++
					}
				}
			}
		}
	}
	if lines < 95*2*2 {
		t.Errorf("%d lines of 95 rules", lines)
	}
}

func checkDecoded(t *testing.T, i, code, major int, unit string, word, status uint32, want Decoding) {
	t.Helper()
	text := fmt.Sprintf("NVRM: Xid (PCI:0000:3b:00): %d, %s Fatal XC1 i0 Link 03 (0x%08x 0x%08x 0x00000000 0x00000000)", code, unit, word, status)
	line, ok := Parse([]byte(text))
	if !ok || line.NVLink == nil {
		t.Fatalf("rule %d: %q is no NVLink line", i, text)
	}
	got, ok := line.NVLink.Decode(code, major)
	got.PeerSide = false // is no part of the rule
	if diff := cmp.Diff(want, got); !ok || diff != "" {
		t.Errorf("rule %d, driver %d, %q: %v (-want +got):\n%s", i, major, text, ok, diff)
	}
}

func TestLossAtThePeerIsNotTheReportersFault(t *testing.T) {
	for _, test := range []struct {
		code int
		in   NVLink
		want bool
	}{
		{145, NVLink{Unit: "RLW_SRC_TRACK", InterruptInfo: 0xe2, ErrorStatus: 4}, true},
		{145, NVLink{Unit: "RLW_SRC_TRACK", InterruptInfo: 0xe2, ErrorStatus: 8}, true},
		{145, NVLink{Unit: "RLW_SRC_TRACK", InterruptInfo: 0x123, ErrorStatus: 8}, true}, // no rule fits
		{145, NVLink{Unit: "RLW_SRC_TRACK", InterruptInfo: 0xe2, ErrorStatus: 1}, false},
		{145, NVLink{Unit: "RLW_REMAP", InterruptInfo: 0x82, ErrorStatus: 4}, false},
		{149, NVLink{Unit: "NETIR_LINK_EVT", InterruptInfo: 0x021425c6, ErrorStatus: 4}, false}, // peer side down: concerns this GPU all the same
	} {
		d, ok := test.in.Decode(test.code, 570)
		if d.PeerSide != test.want {
			t.Errorf("%d %+v: %v %+v", test.code, test.in, ok, d)
		}
		if ok && test.want && !d.FollowsXid154() {
			t.Errorf("%+v does not wait for Xid 154: %+v", test.in, d)
		}
	}
}

func TestErrorThatNoRuleFitsHasTheWordOfItsLine(t *testing.T) {
	for fatal, want := range map[bool]string{true: "Fatal", false: "Non-fatal"} {
		d, ok := NVLink{Unit: "NEW_UNIT", Fatal: fatal}.Decode(147, 610)
		if diff := cmp.Diff(Decoding{Severity: want, Undecoded: true}, d); ok || diff != "" {
			t.Errorf("%v (-want +got):\n%s", ok, diff)
		}
	}
}
