package dra

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"

	"gpuvet.dev/detector"
	"gpuvet.dev/internal/faultpoint"
)

// Giving back holds up a pod's end, so nothing in it waits for longer than both of
// these together.
const (
	// busyLimit is how long it waits for a prepare of the same claim.
	busyLimit = 200 * time.Millisecond
	// releaseLimit is how long it waits for the disk.
	releaseLimit = 250 * time.Millisecond
)

// UnprepareResourceClaims gives claims back, side by side.
func (s *session) UnprepareResourceClaims(ctx context.Context, claims []kubeletplugin.NamespacedObject) (map[types.UID]error, error) {
	if !s.calls.begin() {
		return nil, errStopping
	}
	defer s.calls.end()
	results := make([]error, len(claims))
	var wg sync.WaitGroup
	for i, c := range claims {
		wg.Go(func() { results[i] = s.plugin.unprepare(ctx, c) })
	}
	wg.Wait()
	byUID := make(map[types.UID]error, len(claims))
	for i, c := range claims {
		byUID[c.UID] = results[i]
	}
	return byUID, nil
}

func (p *Plugin) unprepare(ctx context.Context, o kubeletplugin.NamespacedObject) (err error) {
	end := p.o.Begin(OperationUnprepare)
	defer func() { end(err) }()
	uid := string(o.UID)
	unlock, err := p.claim(ctx, uid)
	if err != nil {
		return err
	}
	defer unlock()
	p.release(ctx, &detector.Claim{UID: uid, Namespace: o.Namespace, Name: o.Name})
	return nil
}

// claim locks a claim for giving it back.
func (p *Plugin) claim(ctx context.Context, uid string) (unlock func(), err error) {
	waiting, cancel := context.WithTimeout(ctx, busyLimit)
	defer cancel()
	if unlock, err = p.locks.lock(waiting, uid); err != nil {
		return nil, kindError{KindBusy, fmt.Errorf("claim is still being prepared: %w", err)}
	}
	return unlock, nil
}

// release gives back a claim that is locked, or one that is not held any more. It
// does not fail: a spec that stays is removed later, and names that nobody uses. What
// the disk does not take is done in memory, so that the devices are free; should this
// process die before the disk takes it, the claim is held again until it is found to
// be gone.
func (p *Plugin) release(ctx context.Context, c *detector.Claim) {
	p.removeSpec(c.UID)
	faultpoint.Hit("dra-removed")
	known, held := p.o.Detector.Snapshot().Claim(c.UID)
	if !held {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, releaseLimit)
	defer cancel()
	log := p.o.Log.With(zap.String("claim", known.Namespace+"/"+known.Name), zap.String("uid", c.UID))
	s, err := p.submit(ctx, detector.KindClaimReleased, known, nil)
	faultpoint.Hit("dra-released")
	if err != nil {
		log.Warn("claim is given back, and that is not on disk", zap.Error(err))
		return
	}
	log.Info("claim given back", zap.Uint64("seq", s.Seq))
}

func (p *Plugin) removeSpec(claim string) {
	if err := p.o.Specs.Remove(claim); err != nil {
		p.o.Log.Warn("CDI spec stays", zap.String("uid", claim), zap.Error(err))
	}
}
