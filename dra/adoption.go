package dra

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"go.uber.org/zap"

	"gpuvet.dev/detector"
)

// note is a claim as its CDI spec says it: a daemon that has lost its state must give
// nobody else the devices of containers that run.
func note(c *detector.Claim) string {
	text, _ := json.Marshal(c) // it has nothing that JSON lacks
	return string(text)
}

// adopt takes over, as prepared, the claims that have a spec and that the kubelet
// knows, where the ledger does not have them. That is done before the driver is
// registered, so that the kubelet gives nothing back meanwhile. If it ends half way, an
// intent is left, which keeps the devices, too.
func (p *Plugin) adopt(ctx context.Context) {
	uids, err := p.o.Specs.List()
	if err != nil {
		return // as who removes strays says
	}
	ctx, cancel := context.WithTimeout(ctx, saveLimit)
	defer cancel()
	for _, uid := range uids {
		if _, held := p.o.Detector.Snapshot().Claim(uid); held || !p.known(uid) {
			continue
		}
		if err := p.adoptClaim(ctx, uid); err != nil {
			p.o.Log.Warn("claim that the kubelet knows cannot be held again; its devices may be given to another", zap.String("uid", uid), zap.Error(err))
		}
	}
}

func (p *Plugin) adoptClaim(ctx context.Context, uid string) error {
	text, err := p.o.Specs.Note(uid)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // only begun: no container has it
	}
	if err != nil {
		return err
	}
	c, err := noted(uid, text)
	if err != nil {
		return err
	}
	if boot := p.o.Detector.Snapshot().Boot; c.Boot != boot {
		return nil // what was prepared under another boot left nothing behind
	}
	// Without a disk it counts all the same.
	s, _ := p.submit(ctx, detector.KindClaimIntended, c, nil)
	if _, taken := s.Claim(uid); !taken {
		return s.Against(c)
	}
	_, err = p.submit(ctx, detector.KindClaimPrepared, c, nil)
	p.o.Log.Warn("claim that the kubelet knows was not held; it is held again, as its CDI spec says",
		append(claimFields(c), zap.Int("devices", len(c.Devices)), zap.NamedError("unsaved", err))...)
	return nil
}

// noted is the claim of a note.
func noted(uid, text string) (*detector.Claim, error) {
	if text == "" {
		return nil, errors.New("it does not say it: an older version wrote it")
	}
	var c detector.Claim
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return nil, fmt.Errorf("decode what it says of the claim: %w", err)
	}
	nameless := func(d detector.ClaimDevice) bool { return d.Name == "" || d.PCI == "" }
	if c.UID != uid || c.Namespace == "" || c.Name == "" || len(c.Devices) == 0 || slices.ContainsFunc(c.Devices, nameless) {
		return nil, errors.New("what it says of the claim is of another, or not all")
	}
	return &c, nil
}
