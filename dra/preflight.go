package dra

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/resourceclaim"

	"gpuvet.dev/detector"
	"gpuvet.dev/dra/pool"
	"gpuvet.dev/nvml"
)

// lookLimit is how long all GPUs of a claim have to answer.
const lookLimit = time.Second

// check is the look at the devices of a claim before it gets them: the GPUs are asked
// side by side, and what is known then decides. The error names every device that
// does not do; those with a fault are marked, so that the claim's pod is moved on.
func (p *Plugin) check(ctx context.Context, w *wish) error {
	silent := p.look(ctx, w)
	s := p.o.Detector.Snapshot()
	devices := p.devices(s)
	var faults []string
	kind := KindSilent
	for i, d := range w.devices {
		if !d.checked {
			continue
		}
		held := w.claim.Devices[i]
		device, known := pool.Find(devices, d.name)
		if !known {
			return kindError{KindUnknown, fmt.Errorf("device %s is no more one of node %s", d.name, p.o.Node)}
		}
		verdict := unfit(s, device, d)
		switch {
		case verdict != nil:
			kind = KindUnfit
			faults = append(faults, fmt.Sprintf("%s (%s): %s: %s", d.name, held.UUID, verdict.reason, remedy(verdict.action)))
			p.refuse(ctx, w.claim, held, verdict)
		case silent[held.PCI] != nil:
			faults = append(faults, fmt.Sprintf("%s (%s): %v", d.name, held.UUID, silent[held.PCI]))
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return kindError{kind, errors.New(strings.Join(faults, "; "))}
}

// look has NVML look at each GPU, and gives the errors by PCI address.
func (p *Plugin) look(ctx context.Context, w *wish) map[string]error {
	var gpus []string
	for i, d := range w.devices {
		if pci := w.claim.Devices[i].PCI; d.checked && !slices.Contains(gpus, pci) {
			gpus = append(gpus, pci)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex // guards answers
	answers := map[string]error{}
	for _, pci := range gpus {
		wg.Go(func() {
			err := p.o.Look(ctx, pci)
			if err != nil && ctx.Err() != nil {
				err = fmt.Errorf("did not answer within %v", lookLimit)
			}
			mu.Lock()
			defer mu.Unlock()
			answers[pci] = err
		})
	}
	wg.Wait()
	return answers
}

// verdict is why a device is not given out.
type verdict struct {
	reason detector.Reason
	action detector.Action
}

// unfit judges a device by what is known of it; nil: it does.
func unfit(s *detector.Snapshot, device *pool.Device, d wished) *verdict {
	against := slices.DeleteFunc(slices.Clone(device.Conditions), func(c detector.Condition) bool {
		return !keepsAway(c) || d.tolerates(c)
	})
	if len(against) > 0 {
		return &verdict{against[0].Reason, detector.Remedy(against)}
	}
	gpu, known := s.GPU(device.ID.PCI)
	switch {
	case !known || gpu.Missing:
		return &verdict{detector.GPULost, detector.ActRebootNode}
	case slices.ContainsFunc(device.Conditions, keepsAway): // and all is tolerated
		return nil
	default:
		return asked(gpu)
	}
}

// keepsAway reports whether nobody may begin work on a device with such a fault: one
// that fences, or memory whose repair waits for the reset that is possible now, while
// nobody uses the device.
func keepsAway(c detector.Condition) bool {
	if c.Class == detector.Application || c.Scope == detector.ScopeWorkload {
		return false
	}
	return c.Effect.Fences() || c.Reason == detector.RowRemapPending || c.Reason == detector.RetirementPending
}

// tolerates reports whether the claim has said that it takes a device with this fault.
func (d wished) tolerates(c detector.Condition) bool {
	if c.Taint == "" {
		return false
	}
	effect := c.Effect
	if !effect.Fences() {
		effect = detector.NoSchedule
	}
	taint := resourceapi.DeviceTaint{Key: "gpuvet.dev/" + string(c.Taint), Value: string(c.Reason), Effect: resourceapi.DeviceTaintEffect(effect)}
	return slices.ContainsFunc(d.tolerations, func(t resourceapi.DeviceToleration) bool { return resourceclaim.ToleratesTaint(t, taint) })
}

// asked judges by what the driver asks for, where that is no fault yet because the
// policy holds it back. A person who ignores it for a while is heard.
func asked(g *detector.GPUView) *verdict {
	if g.Recovery == nil {
		return nil
	}
	var v verdict
	switch nvml.RecoveryAction(*g.Recovery) {
	case nvml.RecoverGPUReset, nvml.RecoverBusReset:
		v = verdict{detector.ResetRequired, detector.ActResetGPU}
	case nvml.RecoverDrainP2P:
		v = verdict{detector.LinkFault, detector.ActDrainP2P}
	case nvml.RecoverDrainAndReset:
		v = verdict{detector.ResetRequired, detector.ActDrainAndReset}
	case nvml.RecoverNodeReboot, nvml.RecoverSystemReboot:
		v = verdict{detector.RebootRequired, detector.ActRebootNode}
	case nvml.RecoverNone, nvml.RecoverIMEXDomain: // the domain is not the GPU
		return nil
	default: // a number of a newer driver, which nobody can judge
		return nil
	}
	if slices.ContainsFunc(g.Ignored, func(is detector.Ignored) bool { return is.Reason == v.reason }) {
		return nil
	}
	return &v
}

// refuse marks a device that a claim does not get. It is told once for each claim and
// reason while the mark stands, however often the kubelet asks.
func (p *Plugin) refuse(ctx context.Context, c *detector.Claim, d detector.ClaimDevice, v *verdict) {
	if !p.refusals.news(c.UID + " " + d.Name + " " + string(v.reason)) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, saveLimit)
	defer cancel()
	_, err := p.submit(ctx, detector.KindClaimRefused, c, func(e *detector.Event) {
		e.GPU = d.Device
		e.Fields = map[string]string{"device": d.Name, "reason": string(v.reason), "action": string(v.action)}
	})
	if err != nil { // it counts all the same
		p.o.Log.Warn("refusal of a device is not on disk", zap.String("claim", c.UID), zap.String("device", d.Name), zap.Error(err))
	}
}

// refusals remembers for a while what was told, by name.
type refusals struct {
	mu   sync.Mutex // guards told
	told map[string]time.Time
}

// retellAfter is after what time the same refusal is told again.
const retellAfter = 10 * time.Minute

func (r *refusals) news(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.told == nil {
		r.told = map[string]time.Time{}
	}
	for other, at := range r.told {
		if time.Since(at) > retellAfter {
			delete(r.told, other)
		}
	}
	if _, known := r.told[name]; known {
		return false
	}
	r.told[name] = time.Now()
	return true
}

// remedy is an action as something to do.
func remedy(a detector.Action) string {
	switch a {
	case detector.ActResetGPU:
		return "reset the GPU"
	case detector.ActDrainAndReset:
		return "drain the node and reset the GPU"
	case detector.ActDrainP2P:
		return "drain the GPU and its peers"
	case detector.ActRebootNode:
		return "reboot the node"
	case detector.ActCheckHardware:
		return "check the hardware"
	case detector.ActUpdateSoftware:
		return "update driver and firmware"
	case detector.ActContactSupport:
		return "contact NVIDIA's support"
	case detector.ActRestartApp:
		return "start the work again"
	case detector.ActNone, detector.ActWatch:
	}
	return "nothing to do but watch"
}
