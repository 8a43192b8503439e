package xid

import (
	_ "embed" // the rules
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// firstV2 is the driver branch that changed the layout of the interrupt word.
const firstV2 = 575

// Pattern is the bits that an interrupt word must have: word & Care == Value.
type Pattern struct{ Care, Value uint32 }

// Match reports whether the word has the bits. The zero Pattern, which cares
// for nothing, stands for "no such pattern" and matches no word.
func (p Pattern) Match(word uint32) bool { return p.Care != 0 && word&p.Care == p.Value }

// NVLinkRule is one row of NVIDIA's table for Xid 144 to 150. Drivers before
// R575 (V1) lay the interrupt word out differently from later ones (V2), and
// call some units by other names.
type NVLinkRule struct {
	Code           int
	UnitV1, UnitV2 string
	IntrV1, IntrV2 Pattern
	Status         []uint32 // the error status must be one of these; empty: any will do

	// Decoding is the result. Where the interrupt word matches the promoting
	// pattern instead, PromotedBucket replaces its bucket.
	Decoding
	PromoteV1, PromoteV2 Pattern
	PromotedBucket       string
}

// Decoding is what NVIDIA's table says of one NVLink 5 error.
type Decoding struct {
	Bucket        string // RESET_GPU, IGNORE, or XID_154_EVAL: what the Xid 154 behind it says
	Severity      string // Non-fatal, Fatal or Link Fatal
	Certainty     string // of the severity: empty, usually, uncertain or promotable
	Investigatory string
	Origin        string // HW, SW, HW/SW, FW or NA

	// Undecoded tells that no rule fits: Severity is the line's own word then,
	// and the rest is empty.
	Undecoded bool
	// PeerSide tells that the fault is at the other end of the link: a GPU
	// reports the packets that were lost there as 145 RLW_SRC_TRACK, status 4 or 8,
	// and must not be reset for it alone. (Sheet "Customer User Guide" of NVIDIA's
	// Xid catalogue, 2025-09-30.)
	PeerSide bool
}

// FollowsXid154 reports whether the Xid 154 behind the error says what to do. If
// none comes, the application is to be restarted.
func (d Decoding) FollowsXid154() bool { return d.Bucket == "XID_154_EVAL" }

// Decode finds the rule for an NVLink 5 error. driverMajor is the driver's
// branch (570 of 570.195.03), which decides the layout; 0 if it is not known:
// then whichever layout fits will do, as in the table that we have no error
// fits both with different results. It reports false where no rule fits: the
// Decoding is Undecoded then.
func (n NVLink) Decode(code, driverMajor int) (Decoding, bool) {
	v2 := driverMajor >= firstV2
	d, ok := n.decode(code, v2)
	if !ok && driverMajor <= 0 {
		d, ok = n.decode(code, true)
	}
	if !ok {
		d = Decoding{Severity: n.severity(), Undecoded: true}
	}
	d.PeerSide = code == 145 && n.Unit == "RLW_SRC_TRACK" && (n.ErrorStatus == 4 || n.ErrorStatus == 8)
	return d, ok
}

func (n NVLink) decode(code int, v2 bool) (Decoding, bool) {
	rules := nvlinkRules()
	for i := range rules {
		rule := &rules[i]
		if rule.Code != code || !rule.names(n.Unit) {
			continue
		}
		if len(rule.Status) > 0 && !slices.Contains(rule.Status, n.ErrorStatus) {
			continue
		}
		intr, promote := rule.IntrV1, rule.PromoteV1
		if v2 {
			intr, promote = rule.IntrV2, rule.PromoteV2
		}
		d := rule.Decoding
		switch {
		case promote.Match(n.InterruptInfo):
			d.Bucket = rule.PromotedBucket
			return d, true
		case intr.Match(n.InterruptInfo):
			return d, true
		}
	}
	return Decoding{}, false
}

// names reports whether unit is the rule's, by either name or by both
// joined with a slash, as some logs have it.
func (r *NVLinkRule) names(unit string) bool {
	if older, newer, both := strings.Cut(unit, "/"); both {
		return older == r.UnitV1 && newer == r.UnitV2
	}
	return unit == r.UnitV1 || unit == r.UnitV2
}

// NVLinkRules gives the whole table. The slice is the caller's, the Status
// slices in it are shared.
func NVLinkRules() []NVLinkRule { return slices.Clone(nvlinkRules()) }

var (
	//go:embed catalogue/nvlink5.csv
	nvlinkCSV []byte

	nvlinkRules = sync.OnceValue(func() []NVLinkRule {
		return load("nvlink5.csv", nvlinkCSV, 14, func(row []string) NVLinkRule {
			return NVLinkRule{
				Code: number(row[0]), UnitV1: row[1], UnitV2: row[2],
				IntrV1: pattern(row[3]), IntrV2: pattern(row[4]), Status: statuses(row[5]),
				Decoding: Decoding{
					Bucket: row[6], Investigatory: row[10], Severity: row[11], Certainty: row[12], Origin: row[13],
				},
				PromoteV1: pattern(row[7]), PromoteV2: pattern(row[8]), PromotedBucket: row[9],
			}
		})
	})
)

// pattern reads 32 characters, highest bit first, of 0, 1 and - for a bit that
// does not matter; empty is no pattern.
func pattern(field string) Pattern {
	var p Pattern
	if field == "" {
		return p
	}
	if len(field) != 32 || strings.Trim(field, "01-") != "" {
		panic(fmt.Sprintf("catalogue: pattern %q", field))
	}
	for i := range len(field) {
		bit := uint32(1) << (31 - i)
		if field[i] != '-' {
			p.Care |= bit
		}
		if field[i] == '1' {
			p.Value |= bit
		}
	}
	return p
}

// statuses reads error statuses joined by slashes.
func statuses(field string) []uint32 {
	if field == "" {
		return nil
	}
	var all []uint32
	for status := range strings.SplitSeq(field, "/") {
		n, err := strconv.ParseUint(status, 0, 32)
		if err != nil {
			panic(fmt.Sprintf("catalogue: error status %q: %v", field, err))
		}
		all = append(all, uint32(n))
	}
	return all
}
