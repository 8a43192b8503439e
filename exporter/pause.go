package exporter

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"gpuvet.dev/detector"
)

// PauseRequest asks that NVML be closed for a while: POST /api/v1/pause.
type PauseRequest struct {
	For    string `json:"for"`              // a duration from 1s to 24h, such as 10m
	Why    string `json:"why,omitempty"`    // for people
	Author string `json:"author,omitempty"` // who asks, for the trail
}

// PauseAnswer is what came of it. Closing goes on after the answer: the report
// says when it is done.
type PauseAnswer struct {
	Seq   uint64          `json:"seq"` // of the first snapshot with it
	Pause *detector.Pause `json:"pause"`
	NVML  NVMLReport      `json:"nvml"`
}

// ResumeRequest asks that the pause be over: POST /api/v1/resume.
type ResumeRequest struct {
	Author string `json:"author,omitempty"`
}

// ResumeAnswer is what came of it.
type ResumeAnswer struct {
	Seq uint64          `json:"seq"`           // of the first snapshot without a pause
	Was *detector.Pause `json:"was,omitempty"` // absent: there was none
}

// NVMLReport tells whether something of gpuvet still holds the driver during a
// pause.
type NVMLReport struct {
	Closed bool `json:"closed"`
	// Held says what was found to hold it; empty: nothing yet.
	Held string `json:"held,omitempty"`
}

func (c *commands) pause(ctx context.Context, request PauseRequest) (PauseAnswer, error) {
	_, err := detector.ParsePause(request.For)
	if err != nil {
		err = fmt.Errorf("for: %w", err)
	}
	if err := errors.Join(err, oneLine("why", request.Why), oneLine("author", request.Author)); err != nil {
		return PauseAnswer{}, refusal{http.StatusBadRequest, err}
	}
	after, err := c.byHand(ctx, detector.Event{Kind: detector.KindPaused, Fields: map[string]string{
		"for": request.For, "by": detector.ByHand, "author": request.Author, "why": request.Why,
	}})
	if err != nil {
		return PauseAnswer{}, fmt.Errorf("pause: %w", err)
	}
	return PauseAnswer{Seq: after.Seq, Pause: after.Pause, NVML: c.sources.nvml()}, nil
}

func (c *commands) resume(ctx context.Context, request ResumeRequest) (ResumeAnswer, error) {
	if err := oneLine("author", request.Author); err != nil {
		return ResumeAnswer{}, refusal{http.StatusBadRequest, err}
	}
	before := c.sources.Snapshot()
	after, err := c.byHand(ctx, detector.Event{Kind: detector.KindResumed, Fields: map[string]string{
		"by": detector.ByHand, "author": request.Author,
	}})
	if err != nil {
		return ResumeAnswer{}, fmt.Errorf("resume: %w", err)
	}
	return ResumeAnswer{Seq: after.Seq, Was: before.Pause}, nil
}

// nvml tells whether NVML is closed; without anybody to ask it is.
func (s *Sources) nvml() NVMLReport {
	if s.NVML == nil {
		return NVMLReport{Closed: true}
	}
	closed, held := s.NVML()
	r := NVMLReport{Closed: closed}
	if held != nil {
		r.Held = held.Error()
	}
	return r
}
