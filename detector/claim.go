package detector

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Claim is a ResourceClaim for which devices of this node are held: from the moment
// at which they are about to be prepared to the one at which they were given back.
type Claim struct {
	UID       string        `json:"uid"`
	Namespace string        `json:"namespace"`
	Name      string        `json:"name"`
	Tenant    string        `json:"tenant,omitempty"` // whose it is; empty: the namespace says it
	Pods      []ClaimPod    `json:"pods,omitempty"`   // for whom it is reserved
	Devices   []ClaimDevice `json:"devices,omitempty"`
	// Prepared: containers may have the devices. Before, it is an intent, of which a
	// part may have been carried out.
	Prepared bool          `json:"prepared,omitempty"`
	Boot     string        `json:"boot,omitempty"` // under which it was prepared, or intended
	Since    time.Time     `json:"since,omitzero"` // of the intent
	Mono     time.Duration `json:"mono,omitempty"` // of the intent, since that boot
	// Xids are those of its own work that were told of, at most 16.
	Xids []int `json:"xids,omitempty"`
}

// ClaimPod is a pod for which a claim is reserved.
type ClaimPod struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// ClaimDevice is one device of a claim.
type ClaimDevice struct {
	Name     string   `json:"name"`     // in the pool
	Requests []string `json:"requests"` // of the claim, that it is for
	Device            // the GPU or MIG instance
	// Admin: it is watched, not used, and may be held by others.
	Admin bool `json:"admin,omitempty"`
}

// ReleasedClaim is a claim that was given back a moment ago.
type ReleasedClaim struct {
	UID  string        `json:"uid"`
	Boot string        `json:"boot"`
	Mono time.Duration `json:"mono"` // since boot
	Pods []ClaimPod    `json:"pods,omitempty"`
}

// Refusal is a device that a claim did not get, because of a fault that stands. The
// pod of that claim waits for it in vain, and no other can be running on it.
type Refusal struct {
	GPUInstance     *int      `json:"gi,omitempty"`
	ComputeInstance *int      `json:"ci,omitempty"`
	Reason          Reason    `json:"reason"`
	Since           time.Time `json:"since"`
}

const (
	// releasedFor is how long a claim that was given back is remembered. A call that
	// the kubelet has given up may arrive so much later.
	releasedFor = time.Minute
	// maxReleased and maxClaims bound what is remembered. A node has far fewer devices.
	maxReleased = 256
	maxClaims   = 1024
	// maxClaimXids is how many different Xids of its own a claim is told of.
	maxClaimXids = 16
)

// claim does what an event about a claim asks for.
func (f *folding) claim() {
	c := f.event.Claim
	if c == nil || c.UID == "" {
		return
	}
	f.forgetReleased()
	i, known := f.next.claim(c.UID)
	switch f.event.Kind {
	case KindClaimIntended:
		f.intendClaim(c, i, known)
	case KindClaimPrepared:
		if known {
			prepared := *f.next.Claims[i]
			if prepared.Boot != f.event.Boot {
				prepared.Boot, prepared.Mono = f.event.Boot, f.event.Mono
			}
			prepared.Prepared = true
			f.setClaim(i, &prepared)
		}
	case KindClaimReleased:
		if known {
			if f.event.Fields["undone"] != "true" { // else the same call may come again
				released := ReleasedClaim{UID: c.UID, Boot: f.event.Boot, Mono: f.event.Mono, Pods: f.next.Claims[i].Pods}
				f.next.Released = append(slices.Clip(f.next.Released), released)
				f.next.Released = f.next.Released[max(0, len(f.next.Released)-maxReleased):]
			}
			f.next.Claims = slices.Delete(slices.Clone(f.next.Claims), i, i+1)
		}
	case KindClaimRefused:
		f.refuseClaim()
	default:
	}
}

// intendClaim notes the claim, unless there is a reason against it; the snapshot
// that does not have it says which ([Snapshot.Against]).
func (f *folding) intendClaim(c *Claim, i int, known bool) {
	if f.next.against(c) != nil {
		return
	}
	intended := *c
	intended.Prepared, intended.Boot, intended.Since = false, f.event.Boot, f.event.Time
	intended.Mono = f.event.Mono
	if known {
		was := f.next.Claims[i]
		// It is prepared again for the next pod, or after a boot.
		intended.Since, intended.Xids = was.Since, was.Xids
		if was.Boot == f.event.Boot {
			intended.Prepared, intended.Mono = was.Prepared, was.Mono
		}
		f.setClaim(i, &intended)
		return
	}
	f.next.Claims = slices.Insert(slices.Clone(f.next.Claims), i, &intended)
}

func (f *folding) setClaim(i int, c *Claim) {
	f.next.Claims = slices.Clone(f.next.Claims)
	f.next.Claims[i] = c
}

// forgetReleased drops what no late call can be about any more.
func (f *folding) forgetReleased() {
	over := func(r ReleasedClaim) bool { return r.Boot != f.event.Boot || f.event.Mono-r.Mono > releasedFor }
	if slices.ContainsFunc(f.next.Released, over) {
		f.next.Released = slices.DeleteFunc(slices.Clone(f.next.Released), over)
	}
}

// refuseClaim marks the device, for as long as the fault stands.
func (f *folding) refuseClaim() {
	i, ok := f.next.gpu(f.event.GPU.PCI)
	if !ok {
		return
	}
	r := Refusal{
		GPUInstance: f.event.GPU.GPUInstance, ComputeInstance: f.event.GPU.ComputeInstance,
		Reason: Reason(f.event.Fields["reason"]), Since: f.event.Time.Truncate(time.Second),
	}
	g := f.next.GPUs[i]
	cause := fmt.Sprintf("device %s is not given to a container: %s, %s", f.event.Fields["device"], r.Reason, f.event.Fields["action"])
	f.noteClaim(g, NotedRefused, cause, f.event.Claim.holder())
	if !g.stands(r) || slices.ContainsFunc(g.Refusals, r.same) {
		return
	}
	g = f.own(i)
	g.Refusals = append(slices.Clip(g.Refusals), r)
}

// forgetRefusals drops those whose fault is over.
func (f *folding) forgetRefusals() {
	for i, g := range f.next.GPUs {
		over := func(r Refusal) bool { return !g.stands(r) }
		if slices.ContainsFunc(g.Refusals, over) {
			owned := f.own(i)
			owned.Refusals = slices.DeleteFunc(slices.Clone(g.Refusals), over)
		}
	}
}

func (r Refusal) device() Device {
	return Device{GPUInstance: r.GPUInstance, ComputeInstance: r.ComputeInstance}
}

func (r Refusal) same(other Refusal) bool {
	return r.Reason == other.Reason && r.device().instance() == other.device().instance()
}

// stands reports whether the fault of a refusal is there.
func (g *GPU) stands(r Refusal) bool {
	return slices.ContainsFunc(g.Conditions, func(c Condition) bool {
		_, ignored := g.ignored(c.Reason)
		return c.Reason == r.Reason && c.Visible() && !ignored && c.reaches(r.device())
	})
}

func (s *State) claim(uid string) (int, bool) { return searchClaim(s.Claims, uid) }

func searchClaim(claims []*Claim, uid string) (int, bool) {
	return slices.BinarySearchFunc(claims, uid, func(c *Claim, uid string) int { return strings.Compare(c.UID, uid) })
}

// Claim is the claim with a UID.
func (s *Snapshot) Claim(uid string) (*Claim, bool) {
	i, ok := searchClaim(s.Claims, uid)
	if !ok {
		return nil, false
	}
	return s.Claims[i], true
}

// Against is why the intent to prepare a claim was not taken; nil if it was.
func (s *Snapshot) Against(c *Claim) error { return against(c, s.Claims, s.Released) }

func (s *State) against(c *Claim) error { return against(c, s.Claims, s.Released) }

func against(c *Claim, claims []*Claim, released []ReleasedClaim) error {
	_, known := searchClaim(claims, c.UID)
	if !known && len(claims) >= maxClaims {
		return fmt.Errorf("the node holds %d claims already", len(claims))
	}
	for _, other := range claims {
		if other.UID == c.UID {
			continue
		}
		if name, found := other.overlap(c); found {
			return fmt.Errorf("device %s is held by claim %s/%s (%s)", name, other.Namespace, other.Name, other.UID)
		}
	}
	for _, r := range released {
		if r.UID == c.UID && !known && r.over(c.Pods) {
			return fmt.Errorf("claim was given back a moment ago, and no other pod asks for it: a call that came late")
		}
	}
	return nil
}

// over reports whether there is nobody to prepare the claim for: no pod but those that
// had it. If only some of them are left, the others have ended since, and those that are
// left may have come to the node too late for the first time.
func (r ReleasedClaim) over(pods []ClaimPod) bool {
	had := func(p ClaimPod) bool { return slices.Contains(r.Pods, p) }
	some := len(pods) > 0 && len(pods) < len(r.Pods)
	return !some && !slices.ContainsFunc(pods, func(p ClaimPod) bool { return !had(p) })
}

// overlap names a device that both claims want for themselves.
func (c *Claim) overlap(other *Claim) (name string, found bool) {
	for _, a := range c.Devices {
		for _, b := range other.Devices {
			if !a.Admin && !b.Admin && a.overlaps(b.Device) {
				return b.Name, true
			}
		}
	}
	return "", false
}

// overlaps reports whether two devices have a part of a GPU in common.
func (d Device) overlaps(other Device) bool {
	switch {
	case d.PCI != other.PCI:
		return false
	case d.GPUInstance == nil || other.GPUInstance == nil:
		return true
	case *d.GPUInstance != *other.GPUInstance:
		return false
	case d.ComputeInstance == nil || other.ComputeInstance == nil:
		return true
	default:
		return *d.ComputeInstance == *other.ComputeInstance
	}
}

// attribute says who held the GPU when an application fault was reported, where
// the report does not: the only claim that had it.
func (f *folding) attribute() {
	e := &f.event
	if e.Holder != nil || e.GPU.PCI == "" {
		return
	}
	if c, ok := f.culprit(); ok {
		e.Holder = f.next.Claims[c].holder()
	}
}

// culprit is the claim, by number, whose work must have raised what was reported: the
// only one that had the device, and had it then. Of several nobody can say which, and
// what is told late may be of somebody before.
func (f *folding) culprit() (int, bool) {
	claims := f.next.holding(f.event.GPU)
	if len(claims) != 1 || f.event.Mono < f.next.Claims[claims[0]].Mono {
		return 0, false
	}
	return claims[0], true
}

// holding are the claims, by number, whose containers have a part of a device.
func (s *State) holding(d Device) []int {
	var claims []int
	for i, c := range s.Claims {
		has := func(part ClaimDevice) bool { return !part.Admin && part.overlaps(d) }
		if c.Prepared && c.Boot == s.Boot && slices.ContainsFunc(c.Devices, has) {
			claims = append(claims, i)
		}
	}
	return claims
}

// holders are those who have a part of a device.
func (s *State) holders(d Device) []Holder {
	var all []Holder
	for _, i := range s.holding(d) {
		all = append(all, *s.Claims[i].holder())
	}
	return all
}

// blame tells the claim whose work raised an application's Xid, once for each code.
func (f *folding) blame(g *GPU) {
	i, ok := f.culprit()
	if !ok {
		return
	}
	code := f.event.Xid.Code
	c := *f.next.Claims[i]
	if slices.Contains(c.Xids, code) || len(c.Xids) >= maxClaimXids {
		return
	}
	c.Xids = append(slices.Clip(c.Xids), code)
	f.setClaim(i, &c)
	cause := fmt.Sprintf("Xid %d", code)
	if text := f.event.Xid.Text; text != "" {
		cause += ": " + text
	}
	f.noteClaim(g, NotedApplication, cause, c.holder())
}

// noteClaim records what a claim met on a GPU.
func (f *folding) noteClaim(g *GPU, what Reason, cause string, holder *Holder) {
	f.noteGPU(g, what, cause)
	t := &f.transitions[len(f.transitions)-1]
	t.GPUInstance, t.ComputeInstance = f.event.GPU.GPUInstance, f.event.GPU.ComputeInstance
	t.Holders = []Holder{*holder}
	t.Incident = f.event.ID
}

// holder is the claim as the holder of its devices.
func (c *Claim) holder() *Holder {
	h := &Holder{Claim: c.Namespace + "/" + c.Name, Tenant: c.Tenant}
	if h.Tenant == "" {
		h.Tenant = c.Namespace
	}
	if len(c.Pods) == 1 {
		h.Pod, h.PodUID = c.Namespace+"/"+c.Pods[0].Name, c.Pods[0].UID
	}
	return h
}
