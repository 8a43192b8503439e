package detector

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"gpuvet.dev/detector/xid"
)

// happenings makes up events of two GPUs, over some boots, in the order in which
// a daemon hears of them.
func happenings(r *rand.Rand) []Event {
	pick := func(texts ...string) string { return texts[r.IntN(len(texts))] }
	var events []Event
	numbers := map[string]uint64{}
	boot, loads := 1, 0
	now, booted := at(0), at(-3600)
	add := func(source string, kind Kind, pci string, fields map[string]string) {
		series := fmt.Sprintf("boot-%d/%s", boot, source)
		numbers[series]++
		e := Event{
			ID: fmt.Sprintf("%s/%d", series, numbers[series]), Source: source, Kind: kind, Time: now, Boot: fmt.Sprintf("boot-%d", boot),
			Mono: now.Sub(booted), GPU: Device{PCI: pci}, Fields: fields,
		}
		if kind == KindXid {
			e.Xid = &Report{Code: []int{13, 31, 45, 48, 63, 74, 79, 94, 95, 109, 119, 151}[r.IntN(12)]}
			e.Holder = &Holder{Pod: pick("a/x", "b/x", "c/x", "a/y")}
			if r.IntN(4) == 0 {
				e.GPU.GPUInstance = new(r.IntN(3))
			}
		}
		events = append(events, e)
	}
	load := func() {
		add(SourceState, KindDriverLoaded, "", map[string]string{"version": "570.1", "load": fmt.Sprint(loads)})
	}
	add(SourceDaemon, KindBoot, "", nil)
	load()
	for range 60 {
		now = now.Add(time.Duration(r.ExpFloat64() * []float64{0.1, 20, 600}[r.IntN(3)] * float64(time.Second)))
		pci := pick(gpuA, gpuB)
		so := map[string]string{"so": pick("true", "false")}
		switch r.IntN(33) {
		case 0, 1:
			add(SourceHand, KindPaused, "", map[string]string{"for": pick("1s", "1m", "20m"), "by": ByHand})
		case 2:
			add(SourceNode, KindPaused, "", map[string]string{"for": "1m", "by": pick(ByAnnotation, ByUpgrade), "value": pick("1m", "drain-required")})
		case 3:
			add(SourceNode, KindResumed, "", map[string]string{"by": pick(ByHand, ByAnnotation, ByUpgrade)})
		case 4:
			add(SourceDaemon, KindBoot, "", nil)
			load()
		case 5:
			boot++
			booted = now.Add(-time.Minute)
			loads++
			add(SourceDaemon, KindBoot, "", nil)
			load()
		case 6:
			loads++
			load()
		case 7:
			add(SourceKernelLog, KindLoading, "", nil)
		case 8:
			add(SourceState, []Kind{KindDriverStuck, KindDriverAnswers, KindDriverMissing}[r.IntN(3)], "", map[string]string{"cause": "so"})
		case 9, 10:
			add(SourceState, []Kind{KindUnresponsive, KindResponsive}[r.IntN(2)], pci, nil)
		case 11:
			add(SourceState, KindRecoveryAction, pci, map[string]string{"action": pick("0", "0", "1", "2", "3", "4")})
		case 12:
			add(SourceState, KindRemapPending, pci, map[string]string{"pending": pick("true", "false")})
		case 13, 14, 15:
			add(SourceState, []Kind{KindFresh, KindFresh, KindStale}[r.IntN(3)], pci, nil)
		case 16:
			add(SourceState, []Kind{KindGPULost, KindGPUBack, KindGPUMissing, KindGPUFound}[r.IntN(4)], pci, map[string]string{"index": "0"})
		case 17:
			add(SourceKernelLog, KindHang, pick("", pci), nil)
		case 18:
			add(SourceState, KindReset, pci, map[string]string{"sign": "so", "ago": pick("1s", "10m")})
		case 19:
			add(SourceState, []Kind{KindPCIeDegraded, KindThermal, KindLinkDown, KindWaits, KindSRAMThreshold}[r.IntN(5)], pci, so)
		case 20:
			add(SourceKernelLog, KindLink, pci, nil)
		case 21:
			add(SourceHand, KindIgnore, pci, map[string]string{"reason": pick("GPULost", "ResetRequired", "LinkFault"), "for": pick("1m", "24h")})
		case 22:
			add(SourceHand, []Kind{KindUnignore, KindClear}[r.IntN(2)], pci, map[string]string{"reason": pick("", "GPULost", "ResetRequired")})
		case 23:
			add(SourceKernelLog, KindPCIe, pci, map[string]string{"severity": "Fatal", "text": pick("pciehp: Slot(1): Link Down", "AER")})
		case 24, 25:
			report := &Report{Code: 149}
			source := pick(SourceEvents, SourceKernelLog)
			if source == SourceKernelLog {
				line, _ := xid.Parse([]byte("NVRM: Xid (PCI:0000:3b:00): 149, " + pick(lineReset, lineFollow)))
				report = FromLine(line).Xid
			}
			add(source, KindXid, pci, nil)
			events[len(events)-1].Xid = report
		case 26:
			add(SourceEvents, KindDriverEvent, pci, map[string]string{"type": pick("double-bit-ecc", "contained-poison", "unavailable", "single-bit-ecc-storm")})
		case 27:
			add(SourceEvents, KindDriverEvent, pci, map[string]string{"type": "operational", "severity": pick("fatal", "recoverable"), "attributes": pick("", "component-reset")})
		case 28:
			add(SourceState, []Kind{KindCorrected, KindUncorrected, KindPCIeErrors}[r.IntN(3)], pci, map[string]string{"text": "more", "ago": "10s"})
		case 29:
			add(SourceState, []Kind{KindFabricNotReady, KindFabricRefused, KindFabricDegraded}[r.IntN(3)], pci, so)
		default:
			add(SourceKernelLog, KindXid, pci, nil)
		}
	}
	return events
}

// life is one way to fold the same events.
type life struct {
	state *State
	told  []Transition
}

func (l *life) take(s *State, transitions []Transition) {
	l.state = s
	l.told = append(l.told, transitions...)
}

// restart has the state read back from the disk.
func (l *life) restart(t *testing.T) {
	t.Helper()
	data, err := json.Marshal(Saved{State: l.state})
	if err != nil {
		t.Fatal(err)
	}
	saved, err := DecodeSaved(data)
	if err != nil {
		t.Fatal(err)
	}
	l.state = saved.State
}

// Whether the events are folded in one go, or by a daemon that fires its
// deadlines, or by one whose state is read from the disk each time, the same
// comes out.
func TestLiveRestartAndReplayAgree(t *testing.T) {
	p := DefaultPolicy()
	for seed := range uint64(100) {
		events := happenings(rand.New(rand.NewPCG(seed, 1)))
		replayed, restarted, live := life{state: &State{}}, life{state: &State{}}, life{state: &State{}}
		for _, e := range events {
			s, told, _ := fold(replayed.state, p, e)
			replayed.take(s, told)

			s, told, _ = fold(restarted.state, p, e)
			restarted.take(s, told)
			restarted.restart(t)

			for e.Kind != KindBoot { // the daemon was down before it
				due := live.state.deadline(live.state.Time, live.state.Mono)
				if due.IsZero() || due.After(e.Time) {
					break
				}
				s, told, _ := expire(live.state, p, due, live.state.Mono+due.Sub(live.state.Time))
				live.take(s, told)
			}
			s, told, _ = fold(live.state, p, e)
			live.take(s, told)
		}
		for name, other := range map[string]life{"restarted": restarted, "live": live} {
			if diff := cmp.Diff(replayed.told, other.told); diff != "" {
				t.Fatalf("seed %d: transitions (-replayed +%s):\n%s", seed, name, diff)
			}
			if diff := cmp.Diff(view(replayed.state), view(other.state), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("seed %d: snapshot (-replayed +%s):\n%s", seed, name, diff)
			}
		}
	}
}

// To hear nothing is no evidence: what silences a GPU, or all of them, ends no
// fault that fences.
func TestSilenceEndsNoFault(t *testing.T) {
	silent := []Kind{
		KindStale, KindPaused, KindPauseRefused, KindDriverStuck, KindDriverMissing, KindUnresponsive, KindGPUMissing, KindGPULost,
		KindHang, KindLoading,
	}
	p := DefaultPolicy()
	for seed := range uint64(100) {
		state := &State{}
		for _, e := range happenings(rand.New(rand.NewPCG(seed, 2))) {
			next, told, _ := fold(state, p, e)
			state = next
			if slices.ContainsFunc(told, func(c Transition) bool { return c.Condition == NotedResumed }) {
				continue // what a GPU has answered counts from then on
			}
			for _, c := range told {
				if slices.Contains(silent, e.Kind) && !c.Time.Before(e.Time) && c.Status == Cleared && c.Effect.Fences() {
					t.Fatalf("seed %d: %s %s has ended %s %s: %s", seed, e.Kind, e.GPU.PCI, c.PCI, c.Condition, c.Cause)
				}
			}
		}
	}
}
