package detector

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// PolicyParameters are what a user sets beside the rows. What is left out stays
// as it is by default. They go into the trail with the rows.
type PolicyParameters struct {
	RepeatOffender RepeatOffenderConfig `json:"repeatOffender,omitzero"`
	Suspicion      SuspicionConfig      `json:"suspicion,omitzero"`
	// Source is the file and the place in it; it is no key of the file.
	Source string `json:"source,omitempty" file:"-"`
}

// RepeatOffenderConfig is a [RepeatOffender] in the file.
type RepeatOffenderConfig struct {
	Incidents *int  `json:"incidents,omitempty"` // 0 to 16; 0: no GPU is kept for them
	Within    *Span `json:"within,omitempty"`    // 1h to 8760h
}

// SuspicionConfig is a [Suspicion] in the file.
type SuspicionConfig struct {
	Tenants        *int   `json:"tenants,omitempty"`        // 2 to 16; 0: no GPU is suspected
	Within         *Span  `json:"within,omitempty"`         // 1m to 720h
	NamespaceLabel string `json:"namespaceLabel,omitempty"` // empty: a namespace is a tenant
}

const (
	// maxTenants keeps the signs of one code to an eighth of all that are remembered.
	maxTenants = maxSigns / 8
	year       = 365 * 24 * time.Hour
	month      = 30 * 24 * time.Hour
)

// apply puts the parameters into a policy. Each fault is named by its place,
// "policy.repeatOffender.within: …"; what has one stays as it is.
func (c PolicyParameters) apply(p *Policy) error {
	p.Parameters = c
	var faults []error
	number := func(key string, is *int, good func(int) bool, expected string, into *int) {
		switch {
		case is == nil:
		case good(*is):
			*into = *is
		default:
			faults = append(faults, fmt.Errorf("policy.%s: %d: expected %s", key, *is, expected))
		}
	}
	span := func(key string, is *Span, least, most time.Duration, expected string, into *time.Duration) {
		switch {
		case is == nil:
		case time.Duration(*is) >= least && time.Duration(*is) <= most:
			*into = time.Duration(*is)
		default:
			faults = append(faults, fmt.Errorf("policy.%s: %s: expected %s", key, time.Duration(*is), expected))
		}
	}
	number("repeatOffender.incidents", c.RepeatOffender.Incidents, func(n int) bool { return n >= 0 && n <= maxOffences },
		fmt.Sprintf("1 to %d, or 0 to keep no GPU", maxOffences), &p.RepeatOffender.Count)
	span("repeatOffender.within", c.RepeatOffender.Within, time.Hour, year, "1h to 8760h", &p.RepeatOffender.Within)
	number("suspicion.tenants", c.Suspicion.Tenants, func(n int) bool { return n == 0 || n >= 2 && n <= maxTenants },
		fmt.Sprintf("2 to %d, for no tenant alone may bring it about, or 0 to suspect no GPU", maxTenants), &p.Suspicion.Tenants)
	span("suspicion.within", c.Suspicion.Within, time.Minute, month, "1m to 720h", &p.Suspicion.Within)
	if label := c.Suspicion.NamespaceLabel; label == "" || isLabel(label) {
		p.Suspicion.NamespaceLabel = label
	} else {
		faults = append(faults, fmt.Errorf("policy.suspicion.namespaceLabel: %q: expected the key of a label, such as example.com/team", label))
	}
	return errors.Join(faults...)
}

// labelName and labelPrefix are the two parts of a label's key, in the words of
// "Labels and Selectors" in the documentation of Kubernetes.
var (
	labelName   = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)
	labelPrefix = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
)

func isLabel(key string) bool {
	prefix, name, prefixed := strings.Cut(key, "/")
	if !prefixed {
		return labelName.MatchString(key)
	}
	return labelName.MatchString(name) && len(prefix) <= 253 && labelPrefix.MatchString(prefix)
}

// names are the parameters that are set, for people.
func (c PolicyParameters) names() []string {
	var all []string
	if c.RepeatOffender != (RepeatOffenderConfig{}) {
		all = append(all, "repeatOffender")
	}
	if c.Suspicion != (SuspicionConfig{}) {
		all = append(all, "suspicion")
	}
	return all
}

// PolicyRepeat is the [Repeat] of a row in the file. What is left out stays as it is.
type PolicyRepeat struct {
	Count  *int  `json:"count,omitempty"`  // 2 to 100; 0 or 1: it is seen at once
	Within *Span `json:"within,omitempty"` // 1s to 24h
}

const (
	maxRepeatCount  = 100
	minRepeatWithin = time.Second // signs that come faster are one record of the trail
)

// repeat puts what a row says of signs that must be repeated into the row of its
// reason.
func (b *policyBuilder) repeat(r PolicyRow, row *Row) {
	if r.Repeat != (PolicyRepeat{}) {
		if r.Repeat.Count != nil {
			row.Repeat.Count = *r.Repeat.Count
		}
		if r.Repeat.Within != nil {
			row.Repeat.Within = time.Duration(*r.Repeat.Within)
		}
		switch count, within := row.Repeat.Count, row.Repeat.Within; {
		case count < 0 || count > maxRepeatCount:
			b.fault(b.at+".repeat.count", fmt.Sprint(count), fmt.Sprintf("2 to %d, or 0 to have the fault seen at once", maxRepeatCount))
		case count <= 1 && r.Repeat.Within != nil:
			b.fault(b.at+".repeat.within", within.String()+" without a count", "count beside it, such as count: 3")
		case count <= 1:
			row.Repeat = Repeat{}
		case within == 0 && r.Repeat.Within == nil:
			b.fault(b.at+".repeat.count", fmt.Sprintf("%d without a time", count), "within beside it, such as within: 1h")
		case within < minRepeatWithin || within > longHold:
			b.fault(b.at+".repeat.within", within.String(), "1s to 24h")
		case isFact(r.Reason):
			b.fault(b.at+".repeat", fmt.Sprintf("%s is told once, for as long as it is so", r.Reason), "hold, which has it last before it is seen")
		}
	}
	if row.Repeat.Count > 0 && row.Hold > 0 {
		b.fault(b.at, fmt.Sprintf("hold %s beside repeat of %d", row.Hold, row.Repeat.Count), "one of them; repeat: {count: 0} turns the other off")
	}
}
