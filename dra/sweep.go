package dra

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	securejoin "github.com/cyphar/filepath-securejoin"
	"go.uber.org/zap"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"gpuvet.dev/detector"
	"gpuvet.dev/dra/pool"
)

const (
	// sweepEvery is how often it is asked whether the claims that are held still exist.
	sweepEvery = 10 * time.Minute
	// sweepGrace is how long after a claim was found gone, or after a sweep that
	// somebody could not wait for, the next one comes. A pod that is deleted by force
	// has lost its claim before its containers have ended; the kubelet ends both.
	sweepGrace = time.Minute
	// sweepRead is how long the API server has for one claim.
	sweepRead = 10 * time.Second
)

// sweeps looks from time to time for what the kubelet will never give back, and for
// what is missing of what it has.
func (p *Plugin) sweeps(ctx context.Context) {
	var gone map[string]bool
	for ctx.Err() == nil {
		gone = p.sweep(ctx, gone)
		p.removeStrays(ctx)
		p.restoreMissing(ctx)
		wait := sweepEvery
		if len(gone) > 0 {
			wait = sweepGrace
		}
		p.rest(ctx, wait)
	}
}

// rest waits for the next sweep: the whole time, or the grace if it is wanted soon.
func (p *Plugin) rest(ctx context.Context, wait time.Duration) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(sweepGrace):
	}
	select {
	case <-ctx.Done():
	case <-time.After(wait - sweepGrace):
	case <-p.soon:
	}
}

// sweepSoon asks for a sweep before its time.
func (p *Plugin) sweepSoon() {
	select {
	case p.soon <- struct{}{}:
	default:
	}
}

// sweep gives back the claims that were gone at the sweep before and are gone still,
// and lists those that are gone now. Of a claim that the API server says nothing about
// nothing changes; nor of one that the kubelet is to give back.
func (p *Plugin) sweep(ctx context.Context, before map[string]bool) map[string]bool {
	gone := map[string]bool{}
	for _, c := range p.o.Detector.Snapshot().Claims {
		there, err := p.read(ctx, c)
		is := err == nil && p.gone(c, there)
		switch {
		case ctx.Err() != nil:
			return gone
		case err != nil:
			p.o.Log.Debug("claim cannot be read", zap.String("uid", c.UID), zap.Error(err))
			if before[c.UID] {
				gone[c.UID] = true
			}
		case is && before[c.UID] && !p.known(c.UID):
			p.giveBack(ctx, c)
		case is:
			gone[c.UID] = true
		default:
			p.renew(ctx, c, podsOf(there))
		}
	}
	return gone
}

// known reports whether the kubelet knows a claim, and so gives it back once its
// containers have ended. That may be long after the claim is gone: processes that hang
// in the driver do not end, and are why a pod is deleted by force. The kubelet's
// checkpoint (kubernetes, pkg/kubelet/cm/dra) names a claim from before the first call
// of prepare until unprepare went well. Its format is the kubelet's own, so it is but
// searched for the UID; where it cannot be read, nothing is known.
func (p *Plugin) known(claim string) bool {
	file, err := securejoin.SecureJoin(p.o.Host, filepath.Join(p.o.KubeletDir, "dra_manager_state"))
	if err != nil {
		return false
	}
	checkpoint, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.o.Log.Warn("the kubelet's claims cannot be read", zap.Error(err))
	}
	return bytes.Contains(checkpoint, []byte(claim))
}

// read is a claim as the API server has it; nil: it has none of that name.
func (p *Plugin) read(ctx context.Context, c *detector.Claim) (*resourceapi.ResourceClaim, error) {
	ctx, cancel := context.WithTimeout(ctx, sweepRead)
	defer cancel()
	there, err := p.o.Kube.ResourceV1().ResourceClaims(c.Namespace).Get(ctx, c.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return there, nil
}

// gone reports whether a claim does not exist any more, or is another, or has other
// devices than those that are held for it.
func (p *Plugin) gone(c *detector.Claim, there *resourceapi.ResourceClaim) bool {
	if there == nil || string(there.UID) != c.UID || there.Status.Allocation == nil {
		return true
	}
	results := there.Status.Allocation.Devices.Results
	return !slices.ContainsFunc(c.Devices, func(d detector.ClaimDevice) bool {
		return slices.ContainsFunc(results, func(r resourceapi.DeviceRequestAllocationResult) bool {
			return r.Driver == pool.DriverName && r.Pool == p.o.Node && r.Device == d.Name
		})
	})
}

// renew notes the pods of a claim that is prepared. The kubelet does not say when
// another one joins those that have it.
func (p *Plugin) renew(ctx context.Context, c *detector.Claim, pods []detector.ClaimPod) {
	s := p.o.Detector.Snapshot()
	if len(pods) == 0 || slices.Equal(pods, c.Pods) || !prepared(c, s) {
		return
	}
	unlock, err := p.claim(ctx, c.UID)
	if err != nil {
		return
	}
	defer unlock()
	if now, held := p.o.Detector.Snapshot().Claim(c.UID); !held || now != c {
		return
	}
	renewed := *c
	renewed.Pods = pods
	ctx, cancel := context.WithTimeout(ctx, releaseLimit)
	defer cancel()
	if _, err := p.submit(ctx, detector.KindClaimIntended, &renewed, nil); err != nil { // it counts all the same
		p.o.Log.Debug("pods of a claim are not on disk", zap.String("uid", c.UID), zap.Error(err))
	}
}

// giveBack gives back a claim that is gone, unless somebody has begun to work on it.
func (p *Plugin) giveBack(ctx context.Context, c *detector.Claim) {
	unlock, err := p.claim(ctx, c.UID)
	if err != nil {
		return
	}
	defer unlock()
	if now, held := p.o.Detector.Snapshot().Claim(c.UID); !held || now != c {
		return
	}
	end := p.o.Begin(OperationSweep)
	defer end(nil)
	p.o.Log.Warn("claim is gone and was not given back", zap.String("claim", c.Namespace+"/"+c.Name), zap.String("uid", c.UID))
	p.release(ctx, c)
}

// removeStrays removes what stands in files for claims that are not prepared. One that
// the kubelet knows may be prepared all the same, if our state was lost: its containers
// could not be started again without.
func (p *Plugin) removeStrays(ctx context.Context) {
	claims, err := p.o.Specs.List()
	if err != nil {
		p.o.Log.Warn("CDI specs without a claim stay", zap.Error(err))
	}
	for _, uid := range claims {
		p.ifNotPrepared(ctx, uid, func() { p.removeSpec(uid) })
	}
	p.removeMetadata(ctx)
}

// ifNotPrepared does something about a claim that is not prepared and that nobody
// works on.
func (p *Plugin) ifNotPrepared(ctx context.Context, uid string, do func()) {
	unlock, err := p.claim(ctx, uid)
	if err != nil {
		return
	}
	defer unlock()
	s := p.o.Detector.Snapshot()
	if c, held := s.Claim(uid); (!held || !prepared(c, s)) && !p.known(uid) {
		do()
	}
}

// removeMetadata removes the device metadata (KEP-5304) of claims that are not held:
// package kubeletplugin removes it when the kubelet gives a claim back, and not when
// that happens otherwise. Its names are kubeletplugin's.
func (p *Plugin) removeMetadata(ctx context.Context) {
	prefix := pool.DriverName + "_metadata_"
	specs, _ := filepath.Glob(filepath.Join(p.o.CDIDir, prefix+"*_*.json"))
	for _, spec := range specs {
		uid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(spec), prefix), "_")
		p.ifNotPrepared(ctx, uid, func() { p.removeFile(spec) })
		if _, held := p.o.Detector.Snapshot().Claim(uid); !held && p.known(uid) {
			return // without the ledger nobody can tell its folder from a stray one
		}
	}
	folder := filepath.Join(p.o.KubeletDir, "plugins", pool.DriverName, "dra-device-metadata")
	entries, _ := os.ReadDir(folder) // there is none before the first claim
	for _, e := range entries {
		held := slices.ContainsFunc(p.o.Detector.Snapshot().Claims, func(c *detector.Claim) bool { return c.Namespace+"_"+c.Name == e.Name() })
		if !held {
			p.removeFile(filepath.Join(folder, e.Name()))
		}
	}
}

func (p *Plugin) removeFile(path string) {
	if err := os.RemoveAll(path); err != nil {
		p.o.Log.Warn("device metadata of a claim that is gone stays", zap.String("path", path), zap.Error(err))
	}
}
