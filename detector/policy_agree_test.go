package detector

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// policies are what happens to be taken in between.
var policies = []string{
	``,
	`{"reason": "ResetRequired", "effect": "NoExecute", "hold": "30s"}, {"reason": "ApplicationFault", "quiet": "10s"}`,
	`{"reason": "GPULost", "clear": "quiet", "quiet": "5m"}, {"xid": 119, "ignore": true}, {"xid": 63, "reason": "HardwareWarning"}`,
	`{"reason": "UncorrectableMemory", "ignore": true}, {"reason": "Unresponsive", "hold": "10m"}, {"reason": "DriverStuck", "effect": "None"}`,
	`{"reason": "Unresponsive", "ignore": true}, {"reason": "LinkFault", "clear": "hand"}, {"xid": 94, "reason": "ResetRequired"}, {"xid": 45, "ignore": true}`,
	`{"reason": "ResetRequired", "hold": "20m"}, {"reason": "ContainedMemoryError", "class": "application", "quiet": "1s"}`,
	`{"reason": "ContainedMemoryError", "repeat": {"count": 2, "within": "10m"}}, {"reason": "ResetRequired", "repeat": {"count": 3, "within": "1h"}}, {"reason": "LinkUnstable", "repeat": {"count": 0}}`,
}

// parameters are what the policies set beside their rows.
var parameters = []string{
	``,
	`"repeatOffender": {"incidents": 1},`,
	`"repeatOffender": {"incidents": 2, "within": "1h"}, "suspicion": {"tenants": 2, "within": "10m"},`,
	`"repeatOffender": {"incidents": 0}, "suspicion": {"tenants": 0},`,
	`"suspicion": {"tenants": 2, "namespaceLabel": "example.com/team"},`,
}

// changes puts policies into a history, each at the time of what follows it.
func changes(t *testing.T, r *rand.Rand, events []Event) []Event {
	t.Helper()
	var all []Event
	for i, e := range events {
		if i > 0 && r.IntN(5) == 0 {
			change := policyEvent(sectionPolicy(t, parameters[r.IntN(len(parameters))]+`"rows": [`+policies[r.IntN(len(policies))]+`]`))
			last := events[i-1]
			change.Boot, change.Time, change.Mono = last.Boot, last.Time, last.Mono
			change.ID = fmt.Sprintf("%s/policy/%d", last.Boot, i)
			all = append(all, change)
		}
		all = append(all, e)
	}
	return all
}

// Under policies that change, too, it is all one whether the events are folded
// in one go, by a daemon that fires its deadlines, or by one that is restarted
// after each; and the histories never go back in time.
func TestLiveRestartAndReplayAgreeUnderChangingPolicies(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 3))
		events := changes(t, r, happenings(r))
		restarted, live := life{state: &State{}}, life{state: &State{}}
		policy := DefaultPolicy()
		for _, e := range events {
			s, told, _ := fold(restarted.state, DefaultPolicy().inForce(restarted.state), e)
			restarted.take(s, told)
			restarted.restart(t)

			for e.Kind != KindBoot { // the daemon was down before it
				due := live.state.deadline(live.state.Time, live.state.Mono)
				if due.IsZero() || due.After(e.Time) {
					break
				}
				wait := max(due.Sub(live.state.Time), 0)
				s, told, _ := expire(live.state, policy, live.state.Time.Add(wait), live.state.Mono+wait)
				live.take(s, told)
			}
			s, told, _ = fold(live.state, policy, e)
			live.take(s, told)
			policy = DefaultPolicy().inForce(s)
		}
		var replayed []Transition
		sequence := func(yield func(Event, error) bool) {
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
			}
		}
		for tr, err := range Replay(DefaultPolicy(), sequence) {
			if err != nil {
				t.Fatal(err)
			}
			replayed = append(replayed, tr)
		}
		for name, other := range map[string]life{"restarted": restarted, "live": live} {
			if diff := cmp.Diff(replayed, other.told); diff != "" {
				t.Fatalf("seed %d: transitions (-replayed +%s):\n%s", seed, name, diff)
			}
		}
		if diff := cmp.Diff(view(restarted.state), view(live.state), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("seed %d: snapshot (-restarted +live):\n%s", seed, diff)
		}
		if !slices.IsSortedFunc(replayed, func(a, b Transition) int { return a.Time.Compare(b.Time) }) {
			t.Fatalf("seed %d: told out of order: %+v", seed, replayed)
		}
	}
}

// A fault whose reason the policy ignores is never there, and one that fences
// has a key to be fenced by.
func TestConditionsAreThoseOfThePolicyInForce(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 4))
		state := &State{}
		for _, e := range changes(t, r, happenings(r)) {
			state, _, _ = fold(state, DefaultPolicy().inForce(state), e)
			policy := DefaultPolicy().inForce(state)
			conditions := slices.Clone(state.Node)
			for _, g := range state.GPUs {
				conditions = append(conditions, g.Conditions...)
			}
			for _, c := range conditions {
				if policy.Reasons[c.Reason].Ignore || c.Reason == SuspectedByTenants && policy.Suspicion.Tenants == 0 {
					t.Fatalf("seed %d: %s is ignored, and there: %+v", seed, c.Reason, c)
				}
				if c.Sticky && policy.RepeatOffender.Count == 0 {
					t.Fatalf("seed %d: no GPU is kept, and one is: %+v", seed, c)
				}
				if c.Effect.Fences() && c.Taint == "" {
					t.Fatalf("seed %d: fences without a key: %+v", seed, c)
				}
			}
		}
	}
}
