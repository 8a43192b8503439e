package detector

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// How long a fault is ignored at least and at most: one that was forgotten must
// not be hidden for ever.
const (
	MinIgnore = time.Minute
	MaxIgnore = 720 * time.Hour
)

// Ignored is a reason that is no condition of a GPU for a while, because somebody
// wants it so.
type Ignored struct {
	Reason Reason    `json:"reason"`
	Until  time.Time `json:"until"`
	By     string    `json:"by"` // [ByHand] or [ByAnnotation]
	Author string    `json:"author,omitempty"`
}

// String says what is ignored, until when and who wants it so.
func (i Ignored) String() string {
	return fmt.Sprintf("%s ignored %s until %s", i.Reason, whose(i.By, i.Author), i.Until.UTC().Format(time.RFC3339))
}

// Ignoring says for each reason that is ignored so and whether the GPU has it.
func (g *GPUView) Ignoring() []string {
	var list []string
	for _, is := range g.Ignored {
		text := is.String()
		if i := slices.IndexFunc(g.Unheeded, func(c Condition) bool { return c.Reason == is.Reason }); i >= 0 {
			text += "; the GPU has it: " + g.Unheeded[i].Cause
		}
		list = append(list, text)
	}
	return list
}

// ParseIgnore reads for how long a fault is to be ignored.
func ParseIgnore(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < MinIgnore || d > MaxIgnore {
		return 0, fmt.Errorf("%q: expected a duration from 1m to 720h, such as 24h", text)
	}
	return d, nil
}

// ParseReason reads the reason of a fault, as people name it.
func ParseReason(text string) (Reason, error) {
	reasons := reasonRows()
	if _, known := reasons[Reason(text)]; known {
		return Reason(text), nil
	}
	var names []string
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		names = append(names, string(reason))
	}
	return "", fmt.Errorf("%q is none, expected one of %s", text, strings.Join(names, ", "))
}

// reasonRows are those of the default policy; a user's make no new reasons.
var reasonRows = sync.OnceValue(func() map[Reason]Row { return DefaultPolicy().Reasons })

// Ignorable checks what is to be ignored: a reason that GPUs have. One of the node
// is the policy's to ignore, and a pause is not ignored but ended.
func Ignorable(gpu, text string) error {
	reason, err := ParseReason(text)
	switch scope := reasonRows()[reason].Scope; {
	case err != nil:
		return fmt.Errorf("reason: %w", err)
	case reason == Unmonitored:
		return fmt.Errorf("reason: %s marks a pause, which ends with \"gpuvet resume\"", reason)
	case gpu == NodeName || scope == ScopeNode:
		return errors.New("faults of the node can be ignored by a row of the policy, and not for a while")
	default:
		return nil
	}
}

// NodeName is what people call the node itself where a GPU is expected.
const NodeName = "node"

// ExpectedGPU says how a GPU is named.
const ExpectedGPU = `expected a PCI address (0000:3b:00.0), a UUID (GPU-...) or an index (0)`

// Find gives the GPU that a person means, by PCI address, UUID or index, or with
// [NodeName] the zero Device.
func (s *Snapshot) Find(name string) (Device, error) {
	if name == NodeName {
		return Device{}, nil
	}
	for _, g := range s.GPUs {
		index := g.Index != nil && strconv.Itoa(*g.Index) == name
		if index || strings.EqualFold(g.PCI, name) || g.UUID != "" && strings.EqualFold(g.UUID, name) {
			return Device{PCI: g.PCI, UUID: g.UUID}, nil
		}
		for _, mig := range g.Instances {
			if mig.UUID != "" && strings.EqualFold(mig.UUID, name) {
				return Device{}, fmt.Errorf("%q is a MIG device of GPU %s: expected the whole GPU", name, g.PCI)
			}
		}
	}
	return Device{}, fmt.Errorf("%q is none of the GPUs of this node: %s", name, s.present())
}

// present names the GPUs that there are, as an error does.
func (s *Snapshot) present() string {
	switch n := len(s.GPUs); {
	case n == 0 && !s.Ready():
		return "they have not been looked for yet"
	case n == 0:
		return "it has none at present"
	case n == 1:
		return fmt.Sprintf("it has 1 GPU, %s; %s", s.GPUs[0].PCI, ExpectedGPU)
	default:
		return fmt.Sprintf("it has %d GPUs, %s to %s; %s", n, s.GPUs[0].PCI, s.GPUs[n-1].PCI, ExpectedGPU)
	}
}

// Refusals says what is wrong with what the node asks for, in order.
func (r Requests) Refusals() []string {
	return slices.Sorted(maps.Values(r.Refused))
}

// requestHandled notes that a value of an annotation was dealt with: what it asks
// for was done before, or nothing of it was, for the cause that is told.
func (f *folding) requestHandled() {
	e := &f.event
	f.handled(e.Fields["by"], e.Fields["value"], e.Fields["cause"])
}
