package detector

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// PolicyConfig is the section policy of the config file.
type PolicyConfig struct {
	// Rows change the default policy, each for one reason or one Xid.
	Rows []PolicyRow `json:"rows,omitempty"`
	PolicyParameters
}

// Policy is the default with what the section changes; the error names each
// fault with its place in the file.
func (c PolicyConfig) Policy() (*Policy, error) {
	p, err := NewPolicy(c.Rows)
	return p, errors.Join(err, c.apply(p))
}

// PolicyRow changes the default for one reason, or for one Xid. What it leaves
// out stays as it is. It goes into the trail with the event that brings it, so
// that a replay needs no file.
type PolicyRow struct {
	// Reason is the key; beside Xid, the reason that the code stands for.
	Reason Reason `json:"reason,omitempty"`
	// Xid is the key, 1 to 999. Its row goes before that of its reason.
	Xid    *int   `json:"xid,omitempty"`
	Class  Class  `json:"class,omitempty"`
	Effect Effect `json:"effect,omitempty"` // None, NoSchedule or NoExecute
	Action Action `json:"action,omitempty"` // of an Xid alone
	// Hold, Repeat, Clear and Quiet are of a reason alone.
	Hold   *Span        `json:"hold,omitempty"`
	Repeat PolicyRepeat `json:"repeat,omitzero"`
	Clear  Clear        `json:"clear,omitempty"`
	Quiet  *Span        `json:"quiet,omitempty"`
	// Settle is of a reason alone: how long the GPU must answer well before a reset,
	// or its answers, end the fault.
	Settle *Span `json:"settle,omitempty"`
	// Ignore: counted and recorded, never a condition.
	Ignore bool `json:"ignore,omitempty"`
	// AllowContradiction takes a row that contradicts itself or another.
	AllowContradiction bool `json:"allowContradiction,omitempty"`
	// Source is the file and the place in it; it is no key of the file.
	Source string `json:"source,omitempty" file:"-"`
}

// Key names what the row is for: a reason, or an Xid as "Xid 63".
func (r PolicyRow) Key() string {
	if r.Xid != nil {
		return fmt.Sprintf("Xid %d", *r.Xid)
	}
	return string(r.Reason)
}

// Span is a duration that is written as text, such as 90s or 10m.
type Span time.Duration

// MarshalText writes what UnmarshalText reads.
func (s Span) MarshalText() ([]byte, error) { return []byte(time.Duration(s).String()), nil }

// UnmarshalText reads a Go duration.
func (s *Span) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	*s = Span(d)
	return err
}

const (
	// maxPolicyRows bounds what a policy event carries.
	maxPolicyRows = 256
	maxXid        = 999
	// longHold is how long a fault may be hidden without saying that it may.
	longHold = 24 * time.Hour
)

// NewPolicy is the default with a user's rows. Each fault of a row is named by
// its place, "policy.rows[2].effect: …"; the policy has the rows without one,
// and so there is always one to go on with.
func NewPolicy(rows []PolicyRow) (*Policy, error) {
	b := policyBuilder{policy: DefaultPolicy(), met: map[string]int{}}
	if len(rows) > maxPolicyRows {
		b.fault("policy.rows", fmt.Sprintf("%d rows", len(rows)), fmt.Sprintf("at most %d", maxPolicyRows))
		rows = rows[:maxPolicyRows]
	}
	// A reason's row reaches its codes, so those that are for one code come after.
	for _, ofXid := range []bool{false, true} {
		for i, row := range rows {
			if (row.Xid != nil) != ofXid {
				continue
			}
			b.at = fmt.Sprintf("policy.rows[%d]", i)
			before := len(b.faults)
			b.form(row, i)
			if len(b.faults) > before {
				continue
			}
			if ofXid {
				b.xid(row)
			} else {
				b.reason(row)
			}
		}
	}
	b.taints()
	// Places in the order of the file.
	slices.SortStableFunc(b.faults, func(x, y placedFault) int { return cmp.Compare(x.row, y.row) })
	var faults []error
	for _, f := range b.faults {
		faults = append(faults, f.err)
	}
	return b.policy, errors.Join(faults...)
}

// policyBuilder puts rows into a policy, and gathers what is wrong with them.
type policyBuilder struct {
	policy *Policy
	met    map[string]int // keys, by the place of their row
	at     string         // the place of the row at hand
	row    int
	faults []placedFault
}

type placedFault struct {
	row int
	err error
}

func (b *policyBuilder) fault(at, is, expected string) {
	b.faults = append(b.faults, placedFault{b.row, fmt.Errorf("%s: %s: expected %s", at, is, expected)})
}

// form checks a row by itself.
func (b *policyBuilder) form(r PolicyRow, place int) {
	b.row = place
	_, known := b.policy.Reasons[r.Reason]
	switch {
	case r.Xid == nil && r.Reason == "":
		b.fault(b.at, "no key", "reason or xid")
		return
	case r.Xid != nil && (*r.Xid < 1 || *r.Xid > maxXid):
		b.fault(b.at+".xid", fmt.Sprint(*r.Xid), fmt.Sprintf("1 to %d", maxXid))
	case r.Xid != nil && *r.Xid == 154:
		b.fault(b.at+".xid", "154 is the driver's own word, which goes before every code", "a row for ResetRequired, RebootRequired or LinkFault")
	case r.Reason == Unmonitored:
		b.fault(b.at+".reason", "Unmonitored marks a pause, and is no fault", "another reason")
	}
	if r.Reason != "" && !known {
		b.fault(b.at+".reason", quoted(r.Reason), oneOf(sortedReasons(b.policy)))
	}
	if first, twice := b.met[r.Key()]; twice {
		b.fault(b.at, fmt.Sprintf("%s has a row already, policy.rows[%d]", r.Key(), first), "one row for each reason and Xid")
	}
	b.met[r.Key()] = place
	oneWord(b, ".class", r.Class, classes)
	oneWord(b, ".effect", r.Effect, effects)
	oneWord(b, ".action", r.Action, actions)
	oneWord(b, ".clear", r.Clear, clears)
	if r.Hold != nil && *r.Hold < 0 {
		b.fault(b.at+".hold", time.Duration(*r.Hold).String(), "a duration from 0s")
	}
	if r.Settle != nil && *r.Settle < 0 {
		b.fault(b.at+".settle", time.Duration(*r.Settle).String(), "a duration from 0s")
	}
	if r.Quiet != nil && *r.Quiet <= 0 {
		b.fault(b.at+".quiet", time.Duration(*r.Quiet).String(), "a duration of more than zero")
	}
	b.keys(r)
}

// keys checks which keys stand beside which.
func (b *policyBuilder) keys(r PolicyRow) {
	ofReason := r.Hold != nil || r.Repeat != (PolicyRepeat{}) || r.Clear != "" || r.Quiet != nil || r.Settle != nil
	decides := r.Class != "" || r.Effect != "" || r.Action != "" || r.Xid != nil && r.Reason != ""
	switch {
	case r.Ignore && (ofReason || decides):
		b.fault(b.at, "ignore: true beside other keys", "it alone: what is ignored has no class, effect or end")
	case !r.Ignore && !ofReason && !decides:
		b.fault(b.at, "changes nothing", "class, effect, hold, repeat, clear, quiet, settle or ignore; for an Xid class, effect, action, reason or ignore")
	case r.Xid != nil && ofReason:
		b.fault(b.at, fmt.Sprintf("hold, repeat, clear, quiet or settle for Xid %d", *r.Xid), "a row for its reason, which has them")
	case r.Xid == nil && r.Action != "":
		b.fault(b.at+".action", string(r.Action), "a row for an Xid: each sign of a reason has an action of its own")
	case r.Xid != nil && !r.Ignore && *r.Xid >= firstNVLink5 && *r.Xid <= lastNVLink5:
		b.fault(b.at+".xid", fmt.Sprintf("%d is decided by the fields of its line", *r.Xid), "ignore alone, or a row for LinkFault or LinkWarning")
	}
}

// reason puts in a row for a reason, and for the codes that stand for it.
func (b *policyBuilder) reason(r PolicyRow) {
	row := b.policy.Reasons[r.Reason]
	row.Class, row.Effect = cmp.Or(r.Class, row.Class), cmp.Or(r.Effect, row.Effect)
	row.Clear, row.Ignore, row.Source = cmp.Or(r.Clear, row.Clear), r.Ignore, r.Source
	if r.Hold != nil {
		row.Hold = time.Duration(*r.Hold)
	}
	if r.Settle != nil {
		row.Settle = time.Duration(*r.Settle)
	}
	switch {
	case row.Clear != ClearQuiet && r.Quiet != nil:
		b.fault(b.at+".quiet", time.Duration(*r.Quiet).String()+" without clear: quiet", "clear: quiet beside it")
		return
	case row.Clear != ClearQuiet:
		row.Quiet = 0
	case r.Quiet != nil:
		row.Quiet = time.Duration(*r.Quiet)
	case row.Quiet == 0:
		b.fault(b.at+".clear", "quiet without a time", "quiet beside it, such as quiet: 1h")
		return
	}
	before := len(b.faults)
	if b.repeat(r, &row); len(b.faults) > before {
		return
	}
	against := contradictions(row.Class, row.Effect, row.Scope)
	if row.Hold > longHold {
		against = append(against, fmt.Sprintf("hold %s hides the fault for more than a day", row.Hold))
	}
	if r.Clear == ClearLevel && !isFact(r.Reason) {
		against = append(against, fmt.Sprintf("clear: level ends %s at once, for no source says how long it is so", r.Reason))
	}
	if !b.allowed(r, against) {
		return
	}
	b.policy.Reasons[r.Reason] = row
	for code, x := range b.policy.Xids {
		if x.Reason != r.Reason {
			continue
		}
		x.Verdict = override(x.Verdict, r)
		if r.Ignore {
			x.Ignore = true
		}
		if r.Ignore || r.Class != "" || r.Effect != "" {
			x.Source = r.Source
		}
		b.policy.Xids[code] = x
	}
	b.policy.Rows = append(b.policy.Rows, r)
}

// xid puts in a row for one code.
func (b *policyBuilder) xid(r PolicyRow) {
	code := *r.Xid
	x, ok := b.policy.Xids[code]
	if !ok {
		x.Verdict = Verdict{Class: Information, Action: ActWatch}
	}
	if r.Ignore {
		b.policy.Xids[code] = XidRow{Verdict: recordedOnly, Ignore: true, Source: r.Source, Note: x.Note}
		b.policy.Rows = append(b.policy.Rows, r)
		return
	}
	if x.Ignore && r.Reason == "" {
		b.fault(b.at, fmt.Sprintf("Xid %d stands for a reason that another row ignores", code), "no row for it, or another reason beside it")
		return
	}
	if r.Reason != "" && r.Reason != x.Reason {
		row := b.policy.Reasons[r.Reason]
		x.Verdict = Verdict{Reason: r.Reason, Class: row.Class, Effect: row.Effect, Action: row.Action}
	}
	x.Class, x.Effect, x.Action = cmp.Or(r.Class, x.Class), cmp.Or(r.Effect, x.Effect), cmp.Or(r.Action, x.Action)
	x.Ignore, x.Source = false, r.Source
	row, known := b.policy.Reasons[x.Reason]
	switch {
	case !known && x.Effect != NoEffect:
		b.fault(b.at, fmt.Sprintf("effect %s for Xid %d, which stands for no reason", x.Effect, code), "reason beside it, by which the fault goes")
		return
	case row.Ignore:
		x.Verdict, x.Ignore = recordedOnly, true // whoever names an ignored reason
	case !b.allowed(r, contradictions(x.Class, x.Effect, row.Scope)):
		return
	}
	b.policy.Xids[code] = x
	b.policy.Rows = append(b.policy.Rows, r)
}

// allowed reports whether a row may be taken: nothing is against it, or it says
// so itself.
func (b *policyBuilder) allowed(r PolicyRow, against []string) bool {
	if r.AllowContradiction {
		return true
	}
	for _, what := range against {
		b.fault(b.at, what, "another value, or allowContradiction: true beside it")
	}
	return len(against) == 0
}

// wantedTaints are the keys of faults that do not fence by default.
var wantedTaints = map[Reason]TaintKey{
	ContainedMemoryError: TaintMemory, LinkWarning: TaintLink, FabricWarning: TaintLink,
}

// taints gives a key to the reasons that fence only because a user wants it.
func (b *policyBuilder) taints() {
	fences := map[Reason]bool{}
	for _, x := range b.policy.Xids {
		fences[x.Reason] = fences[x.Reason] || x.Effect.Fences()
	}
	for reason, row := range b.policy.Reasons {
		if row.Taint != "" || !fences[reason] && !row.Effect.Fences() {
			continue
		}
		row.Taint = cmp.Or(wantedTaints[reason], TaintResetRequired)
		b.policy.Reasons[reason] = row
	}
}

// recordedOnly is the verdict on what is ignored.
var recordedOnly = Verdict{Class: Information, Action: ActNone}

// contradictions says what does not go together, and why.
func contradictions(class Class, effect Effect, scope Scope) []string {
	var all []string
	switch {
	case !effect.Fences():
		return nil
	case class == Application:
		all = append(all, fmt.Sprintf("class application with effect %s: untrusted code could fence every GPU that it gets", effect))
	case class == Information:
		all = append(all, fmt.Sprintf("class information with effect %s: it tells of no fault to be fenced for", effect))
	}
	if effect == NoExecute && scope == ScopeWorkload {
		all = append(all, "effect NoExecute with scope workload: the fault ends with the work, and the GPU is fit for other work")
	}
	return all
}

// isFact reports whether a source says how long a fault of this reason is so.
func isFact(r Reason) bool {
	return slices.Contains([]Reason{Unresponsive, DriverStuck, RowRemapPending, RowRemapFailed, RetirementPending, SRAMThreshold, LinkDown, PCIeDegraded, ThermalSlowdown, PowerBrake, FabricNotReady, FabricRefused, FabricDegraded}, r)
}

// rule is a verdict as the user's rows would have it. That on a code has been
// ruled when the policy was made.
func (p *Policy) rule(v Verdict, e *Event) Verdict {
	if len(p.Rows) == 0 || e.Xid != nil && p.Xids[e.Xid.Code].Reason == v.Reason {
		return v
	}
	i := slices.IndexFunc(p.Rows, func(r PolicyRow) bool { return r.Xid == nil && r.Reason == v.Reason })
	if i < 0 {
		return v
	}
	return override(v, p.Rows[i])
}

// override is a verdict as the row of its reason would have it.
func override(v Verdict, r PolicyRow) Verdict {
	if r.Ignore {
		return recordedOnly
	}
	v.Class, v.Effect = cmp.Or(r.Class, v.Class), cmp.Or(r.Effect, v.Effect)
	return v
}

var (
	classes = []Class{Application, Hardware, Link, Driver, Fabric, Information}
	effects = []Effect{None, NoSchedule, NoExecute}
	actions = []Action{
		ActNone, ActWatch, ActRestartApp, ActResetGPU, ActDrainAndReset, ActDrainP2P, ActRebootNode, ActCheckHardware,
		ActUpdateSoftware, ActContactSupport,
	}
	clears = []Clear{ClearReset, ClearBoot, ClearAnswer, ClearLevel, ClearQuiet, ClearHand}
)

// oneWord checks a value that is one of a few words; empty is left out.
func oneWord[W ~string](b *policyBuilder, key string, word W, words []W) {
	if word != "" && !slices.Contains(words, word) {
		b.fault(b.at+key, quoted(word), oneOf(words))
	}
}

func quoted[W ~string](word W) string { return fmt.Sprintf("%q", string(word)) }

// oneOf is "a, b or c".
func oneOf[W ~string](words []W) string {
	var list strings.Builder
	for i, word := range words {
		switch {
		case i > 0 && i == len(words)-1:
			list.WriteString(" or ")
		case i > 0:
			list.WriteString(", ")
		}
		list.WriteString(string(word))
	}
	return list.String()
}

func sortedReasons(p *Policy) []Reason {
	var all []Reason
	for reason := range p.Reasons {
		if reason != Unmonitored {
			all = append(all, reason)
		}
	}
	slices.Sort(all)
	return all
}
