package exporter

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"gpuvet.dev/detector"
)

// ClearRequest asks that faults be taken for over: POST /api/v1/clear.
type ClearRequest struct {
	// GPU is a PCI address, a UUID or an index; "node" means the faults of the
	// node itself.
	GPU    string `json:"gpu"`
	Reason string `json:"reason,omitempty"` // empty: all
	Author string `json:"author,omitempty"` // who asks, for the trail
}

// ClearAnswer is what came of it.
type ClearAnswer struct {
	Seq     uint64            `json:"seq"`           // of the first snapshot without them
	PCI     string            `json:"pci,omitempty"` // empty: the node
	Cleared []detector.Reason `json:"cleared"`       // that were visible before; may be none
	Left    []detector.Reason `json:"left"`          // still visible, or again
}

func (c *commands) clear(ctx context.Context, request ClearRequest) (ClearAnswer, error) {
	if err := c.check(request); err != nil {
		return ClearAnswer{}, refusal{http.StatusBadRequest, err}
	}
	before := c.sources.Snapshot()
	device, err := find(before, request.GPU)
	if err != nil {
		return ClearAnswer{}, refusal{http.StatusNotFound, err}
	}
	after, err := c.byHand(ctx, detector.Event{
		Kind: detector.KindClear, GPU: device, Fields: map[string]string{"reason": request.Reason, "author": request.Author},
	})
	if err != nil {
		return ClearAnswer{}, fmt.Errorf("clear: %w", err)
	}
	done := ClearAnswer{Seq: after.Seq, PCI: device.PCI, Cleared: []detector.Reason{}, Left: reasons(after, device.PCI)}
	for _, reason := range reasons(before, device.PCI) {
		if !slices.Contains(done.Left, reason) {
			done.Cleared = append(done.Cleared, reason)
		}
	}
	return done, nil
}

// check looks at the fields that need no look at the GPUs.
func (c *commands) check(request ClearRequest) error {
	if request.GPU == "" {
		return fmt.Errorf("gpu: missing, %s", expectedGPU)
	}
	if err := oneLine("author", request.Author); err != nil {
		return err
	}
	if request.Reason == "" || c.sources.Policy == nil {
		return nil
	}
	reasons := c.sources.Policy().Reasons
	if _, ok := reasons[detector.Reason(request.Reason)]; !ok {
		known := make([]string, 0, len(reasons))
		for reason := range reasons {
			known = append(known, string(reason))
		}
		slices.Sort(known)
		return fmt.Errorf("reason: %q is none, expected one of %s", request.Reason, strings.Join(known, ", "))
	}
	return nil
}

const (
	nodeName    = "node"
	expectedGPU = `expected a PCI address (0000:3b:00.0), a UUID (GPU-...), an index (0) or "node"`
)

// find gives the device that a person means.
func find(s *detector.Snapshot, name string) (detector.Device, error) {
	if name == nodeName {
		return detector.Device{}, nil
	}
	for _, g := range s.GPUs {
		index := g.Index != nil && strconv.Itoa(*g.Index) == name
		if index || strings.EqualFold(g.PCI, name) || g.UUID != "" && strings.EqualFold(g.UUID, name) {
			return detector.Device{PCI: g.PCI, UUID: g.UUID}, nil
		}
	}
	return detector.Device{}, fmt.Errorf("gpu: %q is none of the %d GPUs of this node, %s", name, len(s.GPUs), expectedGPU)
}

// reasons lists the visible faults of a GPU, or of the node.
func reasons(s *detector.Snapshot, pci string) []detector.Reason {
	conditions := s.Node
	if g, ok := s.GPU(pci); ok {
		conditions = g.Conditions
	}
	list := make([]detector.Reason, 0, len(conditions))
	for _, c := range conditions {
		list = append(list, c.Reason)
	}
	return list
}
