package exporter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"gpuvet.dev/detector"
)

// ClearRequest asks that faults be taken for over: POST /api/v1/clear.
type ClearRequest struct {
	// GPU is a PCI address, a UUID or an index; [detector.NodeName] means the faults
	// of the node itself.
	GPU    string `json:"gpu"`
	Reason string `json:"reason,omitempty"` // empty: all
	Author string `json:"author,omitempty"` // who asks, for the trail
}

// ClearAnswer is what came of it.
type ClearAnswer struct {
	Seq     uint64            `json:"seq"`           // of the first snapshot without them
	PCI     string            `json:"pci,omitempty"` // empty: the node
	Cleared []detector.Reason `json:"cleared"`       // that were visible before; may be none
	Left    []LeftFault       `json:"left"`          // still visible, or again
	// Forgotten: the driver does not list the GPU any more, and it had no other
	// fault.
	Forgotten bool `json:"forgotten,omitempty"`
}

// LeftFault is a fault that stands.
type LeftFault struct {
	Reason detector.Reason `json:"reason"`
	// Ends says what ends a fault that nobody can clear by hand; empty: it was not
	// asked for.
	Ends string `json:"ends,omitempty"`
}

func (c *commands) clear(ctx context.Context, request ClearRequest) (ClearAnswer, error) {
	if err := check(request); err != nil {
		return ClearAnswer{}, refusal{http.StatusBadRequest, err}
	}
	before := c.sources.Snapshot()
	device, err := find(before, request.GPU)
	if err != nil {
		return ClearAnswer{}, err
	}
	after, err := c.byHand(ctx, detector.Event{
		Kind: detector.KindClear, GPU: device, Fields: map[string]string{"reason": request.Reason, "author": request.Author},
	})
	if err != nil {
		return ClearAnswer{}, fmt.Errorf("clear: %w", err)
	}
	done := ClearAnswer{Seq: after.Seq, PCI: device.PCI, Cleared: []detector.Reason{}, Left: []LeftFault{}}
	left := conditions(after, device.PCI)
	for _, fault := range left {
		l := LeftFault{Reason: fault.Reason}
		if request.Reason == "" || request.Reason == string(fault.Reason) {
			l.Ends = ends(fault)
		}
		done.Left = append(done.Left, l)
	}
	for _, was := range conditions(before, device.PCI) {
		if !slices.ContainsFunc(left, func(c detector.Condition) bool { return c.Reason == was.Reason }) {
			done.Cleared = append(done.Cleared, was.Reason)
		}
	}
	if _, known := after.GPU(device.PCI); !known && device.PCI != "" {
		done.Forgotten = true
	}
	return done, nil
}

// check looks at the fields that need no look at the GPUs.
func check(request ClearRequest) error {
	var reason error
	if request.Reason != "" {
		if _, err := detector.ParseReason(request.Reason); err != nil {
			reason = fmt.Errorf("reason: %w", err)
		}
	}
	return errors.Join(checkGPU(request.GPU), reason, oneLine("author", request.Author))
}

func checkGPU(name string) error {
	if name == "" {
		return fmt.Errorf("gpu: missing, %s", detector.ExpectedGPU)
	}
	return nil
}

// find gives the device that a person means.
func find(s *detector.Snapshot, name string) (detector.Device, error) {
	device, err := s.Find(name)
	if err != nil {
		err = refusal{http.StatusNotFound, fmt.Errorf("gpu: %w", err)}
	}
	return device, err
}

// ends says what ends a fault that a source says is so at present.
func ends(c detector.Condition) string {
	return "it ends " + cmp.Or(endings[c.Reason], "when its source says that it is no longer so")
}

var endings = map[detector.Reason]string{
	detector.Unmonitored:     `with the pause, which "gpuvet resume" ends`,
	detector.GPULost:         "when the GPU answers again",
	detector.Unresponsive:    "when calls about the GPU return",
	detector.DriverStuck:     "when the driver answers",
	detector.ResetRequired:   "when the driver asks for no recovery any more",
	detector.RebootRequired:  "when the driver asks for no recovery any more",
	detector.RowRemapPending: "with the reset that does the remapping",
}

// conditions are the visible faults of a GPU, those that are ignored too, or of the
// node.
func conditions(s *detector.Snapshot, pci string) []detector.Condition {
	if pci == "" {
		return s.Node
	}
	if g, ok := s.GPU(pci); ok {
		return slices.Concat(g.Conditions, g.Unheeded)
	}
	return nil
}
