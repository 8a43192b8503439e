package dra

import (
	"context"
	"maps"
	"slices"

	"go.uber.org/zap"

	"gpuvet.dev/detector"
)

// restore has the CDI specs be those of the claims that are prepared. They may be
// gone if somebody emptied the folder, and too many after a crash; or what is known of
// claims is gone.
func (p *Plugin) restore(ctx context.Context) {
	s := p.o.Detector.Snapshot()
	for _, c := range s.Claims {
		if prepared(c, s) {
			p.restoreSpec(c, s)
		}
	}
	p.adopt(ctx)
	p.removeStrays(ctx)
}

// restoreMissing writes the specs of prepared claims that have none, or that were not
// to be had at the start: a container that is started again would fail without. All
// others are left alone.
func (p *Plugin) restoreMissing(ctx context.Context) {
	s := p.o.Detector.Snapshot() // first: what is prepared by now has a spec by then
	specs, err := p.o.Specs.List()
	if err != nil {
		return // as who removes strays has said
	}
	maps.DeleteFunc(p.unrestored, func(uid, _ string) bool { _, held := s.Claim(uid); return !held })
	for _, c := range s.Claims {
		if _, failed := p.unrestored[c.UID]; failed || !slices.Contains(specs, c.UID) {
			p.restoreAgain(ctx, c.UID)
		}
	}
}

// restoreAgain restores the spec of a claim, if it is prepared and nobody works on it.
func (p *Plugin) restoreAgain(ctx context.Context, uid string) {
	unlock, err := p.claim(ctx, uid)
	if err != nil {
		return
	}
	defer unlock()
	s := p.o.Detector.Snapshot()
	c, held := s.Claim(uid)
	if held && prepared(c, s) && p.restoreSpec(c, s) {
		p.o.Log.Info("CDI spec of a claim that is prepared was missing and is restored", claimFields(c)...)
	}
}

// restoreSpec writes the spec of a claim. Why it cannot be written is logged once.
func (p *Plugin) restoreSpec(c *detector.Claim, s *detector.Snapshot) bool {
	_, err := p.o.Specs.Write(c.UID, p.spec(c, s), note(c))
	if err == nil {
		delete(p.unrestored, c.UID)
		return true
	}
	if p.unrestored[c.UID] != err.Error() {
		p.o.Log.Warn("CDI spec of a claim that is prepared cannot be restored; it is tried again", append(claimFields(c), zap.Error(err))...)
	}
	p.unrestored[c.UID] = err.Error()
	return false
}

func claimFields(c *detector.Claim) []zap.Field {
	return []zap.Field{zap.String("claim", c.Namespace+"/"+c.Name), zap.String("uid", c.UID)}
}
