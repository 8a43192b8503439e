package exporter

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"gpuvet.dev/detector"
)

// IgnoreRequest asks that a reason be no condition of a GPU for a while:
// POST /api/v1/ignore.
type IgnoreRequest struct {
	GPU    string `json:"gpu"` // a PCI address, a UUID or an index
	Reason string `json:"reason"`
	For    string `json:"for"`              // a duration from 1m to 720h, such as 24h
	Author string `json:"author,omitempty"` // who asks, for the trail
}

// IgnoreAnswer is what came of it.
type IgnoreAnswer struct {
	Seq     uint64           `json:"seq"` // of the first snapshot with it
	PCI     string           `json:"pci"`
	Ignored detector.Ignored `json:"ignored"` // what is in force
}

// UnignoreRequest asks that a reason count again: POST /api/v1/unignore.
type UnignoreRequest struct {
	GPU    string `json:"gpu"`
	Reason string `json:"reason"`
	Author string `json:"author,omitempty"`
}

// UnignoreAnswer is what came of it.
type UnignoreAnswer struct {
	Seq uint64            `json:"seq"` // of the first snapshot without it
	PCI string            `json:"pci"`
	Was *detector.Ignored `json:"was,omitempty"` // absent: it was not ignored
}

func (c *commands) ignore(ctx context.Context, request IgnoreRequest) (IgnoreAnswer, error) {
	_, err := detector.ParseIgnore(request.For)
	if err != nil {
		err = fmt.Errorf("for: %w", err)
	}
	device, _, err := c.target(request.GPU, request.Reason, request.Author, err)
	if err != nil {
		return IgnoreAnswer{}, err
	}
	after, err := c.byHand(ctx, detector.Event{Kind: detector.KindIgnore, GPU: device, Fields: map[string]string{
		"reason": request.Reason, "for": request.For, "by": detector.ByHand, "author": request.Author,
	}})
	if err != nil {
		return IgnoreAnswer{}, fmt.Errorf("ignore: %w", err)
	}
	is := ignored(after, device.PCI, request.Reason)
	if is == nil {
		return IgnoreAnswer{}, fmt.Errorf("ignore: %s of %s is not ignored: too much is", request.Reason, device.PCI)
	}
	return IgnoreAnswer{Seq: after.Seq, PCI: device.PCI, Ignored: *is}, nil
}

func (c *commands) unignore(ctx context.Context, request UnignoreRequest) (UnignoreAnswer, error) {
	device, before, err := c.target(request.GPU, request.Reason, request.Author, nil)
	if err != nil {
		return UnignoreAnswer{}, err
	}
	after, err := c.byHand(ctx, detector.Event{Kind: detector.KindUnignore, GPU: device, Fields: map[string]string{
		"reason": request.Reason, "by": detector.ByHand, "author": request.Author,
	}})
	if err != nil {
		return UnignoreAnswer{}, fmt.Errorf("unignore: %w", err)
	}
	return UnignoreAnswer{Seq: after.Seq, PCI: device.PCI, Was: ignored(before, device.PCI, request.Reason)}, nil
}

// target checks what is to be ignored, and finds its GPU. wrong is what was found
// to be wrong before.
func (c *commands) target(gpu, reason, author string, wrong error) (detector.Device, *detector.Snapshot, error) {
	s := c.sources.Snapshot()
	if err := errors.Join(checkGPU(gpu), detector.Ignorable(gpu, reason), wrong, oneLine("author", author)); err != nil {
		return detector.Device{}, s, refusal{http.StatusBadRequest, err}
	}
	device, err := find(s, gpu)
	return device, s, err
}

// ignored is what is ignored of a GPU under a reason; nil: nothing.
func ignored(s *detector.Snapshot, pci, reason string) *detector.Ignored {
	g, ok := s.GPU(pci)
	if !ok {
		return nil
	}
	i := slices.IndexFunc(g.Ignored, func(i detector.Ignored) bool { return i.Reason == detector.Reason(reason) })
	if i < 0 {
		return nil
	}
	return &g.Ignored[i]
}
