package dra

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"

	"gpuvet.dev/detector"
	"gpuvet.dev/internal/faultpoint"
)

const (
	// saveLimit is how long a step waits for the disk. The kubelet gives a call 45 s,
	// and asks again.
	saveLimit = 5 * time.Second
	// undoLimit is the same on the way back, where it only matters what is known.
	undoLimit = 200 * time.Millisecond
)

// PrepareResourceClaims prepares claims side by side, each for itself.
func (s *session) PrepareResourceClaims(ctx context.Context, claims []*resourceapi.ResourceClaim) (map[types.UID]kubeletplugin.PrepareResult, error) {
	if !s.calls.begin() {
		return nil, errStopping
	}
	defer s.calls.end()
	results := make([]kubeletplugin.PrepareResult, len(claims))
	var wg sync.WaitGroup
	for i, c := range claims {
		wg.Go(func() { results[i].Devices, results[i].Err = s.plugin.prepare(ctx, c) })
	}
	wg.Wait()
	byUID := make(map[types.UID]kubeletplugin.PrepareResult, len(claims))
	for i, c := range claims {
		byUID[c.UID] = results[i]
	}
	return byUID, nil
}

// prepare gives a claim its devices.
func (p *Plugin) prepare(ctx context.Context, c *resourceapi.ResourceClaim) (devices []kubeletplugin.Device, err error) {
	end := p.o.Begin(OperationPrepare)
	defer func() {
		if end(err); err != nil {
			p.o.Log.Warn("claim is not prepared", zap.String("claim", c.Namespace+"/"+c.Name), zap.String("uid", string(c.UID)), zap.Error(err))
		}
	}()
	w, err := p.wish(ctx, c)
	if err != nil {
		return nil, err
	}
	// It is looked at before anything is locked: who gives a claim back must not
	// wait for NVML.
	if !w.granted(p.o.Detector.Snapshot()) {
		if rival := p.o.Withheld(); rival != "" {
			return nil, kindError{KindHeld, fmt.Errorf("the GPUs of node %s are given out by somebody else: %s", p.o.Node, rival)}
		}
		if err := p.check(ctx, w); err != nil {
			return nil, err
		}
	}
	unlock, err := p.locks.lock(ctx, w.claim.UID)
	if err != nil {
		return nil, kindError{KindBusy, fmt.Errorf("another call works on the claim: %w", err)}
	}
	defer unlock()
	if err := ctx.Err(); err != nil { // what the kubelet has given up must not be done late
		return nil, kindError{KindBusy, err}
	}
	// From here on it is done to the end, whether or not the kubelet still waits.
	return p.grant(context.WithoutCancel(ctx), w)
}

// grant goes the steps that have not been gone, each of which can be gone again. One
// that fails takes back the ones before it, unless containers may use the devices.
func (p *Plugin) grant(ctx context.Context, w *wish) (devices []kubeletplugin.Device, err error) {
	c, s := w.claim, p.o.Detector.Snapshot()
	granted := w.granted(s)
	if known, ok := s.Claim(c.UID); !granted || !ok || !slices.Equal(known.Pods, c.Pods) {
		s, err = p.save(ctx, detector.KindClaimIntended, c)
		if _, taken := s.Claim(c.UID); !taken {
			p.sweepSoon()
			return nil, kindError{KindHeld, s.Against(c)}
		}
		defer func() {
			if err != nil && !granted {
				p.takeBack(ctx, c)
			}
		}()
		if err != nil {
			return nil, err
		}
		faultpoint.Hit("dra-intended")
	}
	held, _ := s.Claim(c.UID)
	ids, err := p.o.Specs.Write(c.UID, p.spec(c, s), note(held))
	if err != nil {
		return nil, kindError{KindCDI, err}
	}
	faultpoint.Hit("dra-written")
	if !granted {
		if s, err = p.save(ctx, detector.KindClaimPrepared, c); err != nil {
			return nil, err
		}
		faultpoint.Hit("dra-prepared")
		p.o.Log.Info("claim prepared", zap.Uint64("seq", s.Seq), zap.String("claim", c.Namespace+"/"+c.Name), zap.String("uid", c.UID), zap.Int("devices", len(c.Devices)))
	}
	return p.answer(c, s, ids), nil
}

// save notes how far a claim has come, and returns once that is on disk.
func (p *Plugin) save(ctx context.Context, kind detector.Kind, c *detector.Claim) (*detector.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, saveLimit)
	defer cancel()
	s, err := p.submit(ctx, kind, c, nil)
	if err != nil {
		err = kindError{KindDisk, fmt.Errorf("claim cannot be noted on disk, without which no device is given out: %w", err)}
	}
	return s, err
}

// takeBack undoes what a failed prepare has done. What the disk does not take of it
// is known to this process; the next finds an intent, which the kubelet ends.
func (p *Plugin) takeBack(ctx context.Context, c *detector.Claim) {
	ctx, cancel := context.WithTimeout(ctx, undoLimit)
	defer cancel()
	p.removeSpec(c.UID)
	_, err := p.submit(ctx, detector.KindClaimReleased, c, func(e *detector.Event) { e.Fields = map[string]string{"undone": "true"} })
	if err != nil {
		p.o.Log.Warn("that a claim was not prepared is not on disk", zap.String("uid", c.UID), zap.Error(err))
	}
}

// submit folds an event about a claim. An error is about the disk: it is folded all
// the same.
func (p *Plugin) submit(ctx context.Context, kind detector.Kind, c *detector.Claim, fill func(*detector.Event)) (*detector.Snapshot, error) {
	e := detector.Event{Source: detector.SourceDRA, Kind: kind, Claim: c}
	if fill != nil {
		fill(&e)
	}
	return p.o.Detector.Submit(ctx, e)
}
