package exporter

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"time"

	"gpuvet.dev/detector"
	"gpuvet.dev/nvml"
)

// gpu is one GPU as the snapshot and the sample know it together.
type gpu struct {
	uuid, index string            // its labels of identity
	view        *detector.GPUView // nil: the snapshot does not know it yet
	sample      *nvml.GPUSample   // nil: the driver was never asked about it
	up          bool              // it answers
	readings    bool              // its readings are of now
	health      bool              // so is what it says of its health
}

// join brings together what the snapshot and the sample know, by PCI address,
// in its order.
func join(snapshot *detector.Snapshot, sample *nvml.Sample, freshness time.Duration, now time.Time) []gpu {
	gpus := make([]gpu, 0, len(snapshot.GPUs))
	place := func(pci string) (int, bool) {
		return slices.BinarySearchFunc(gpus, pci, func(g gpu, pci string) int { return cmp.Compare(g.pci(), pci) })
	}
	for i := range snapshot.GPUs {
		gpus = append(gpus, gpu{view: &snapshot.GPUs[i]})
	}
	for i := range sample.GPUs {
		s := &sample.GPUs[i]
		at, ok := place(s.GPU.PCI)
		switch {
		case !ok && s.Missing:
			continue // somebody has had it forgotten
		case !ok:
			gpus = slices.Insert(gpus, at, gpu{})
		}
		gpus[at].sample = s
	}
	for i := range gpus {
		gpus[i].identify(gpus[:i])
		gpus[i].judge(freshness, now)
	}
	return gpus
}

func (g *gpu) pci() string {
	if g.view != nil {
		return g.view.PCI
	}
	return g.sample.GPU.PCI
}

// identify sets the labels that tell the GPU from all others. A card that was
// moved may be known at two addresses: the second goes by its address.
func (g *gpu) identify(others []gpu) {
	if g.view != nil {
		g.uuid = g.view.UUID
	}
	if g.sample != nil {
		g.uuid, g.index = cmp.Or(g.uuid, g.sample.GPU.UUID), strconv.Itoa(g.sample.Index)
	}
	if g.view != nil && g.view.Index != nil {
		g.index = strconv.Itoa(*g.view.Index)
	}
	same := func(other gpu) bool { return other.uuid == g.uuid && other.index == g.index }
	if g.uuid == "" || slices.ContainsFunc(others, same) {
		g.uuid = g.pci()
	}
}

// judge says what of the sample is of now. A question that timed out lets the
// answer before it stand until it is too old; any other error ends it at once.
func (g *gpu) judge(freshness time.Duration, now time.Time) {
	s := g.sample
	if s == nil {
		return
	}
	limit := cmp.Or(freshness, s.Freshness, nvml.DefaultFreshness)
	stands := func(answered time.Time, err error) bool {
		return !answered.IsZero() && now.Sub(answered) < limit && (err == nil || errors.Is(err, nvml.ErrTimeout))
	}
	lost := s.Missing || errors.Is(s.ReadingsErr, nvml.ErrLost) || errors.Is(s.HealthErr, nvml.ErrLost) ||
		s.ReadingsErr != nil && g.has(detector.GPULost)
	g.readings = !lost && stands(s.ReadingsAnswered, s.ReadingsErr)
	g.health = !lost && stands(s.HealthAnswered, s.HealthErr)
	g.up = g.readings && s.ReadingsErr == nil
}

func (g *gpu) has(reason detector.Reason) bool {
	return g.view != nil && slices.ContainsFunc(g.view.Conditions, func(c detector.Condition) bool { return c.Reason == reason })
}

func (p *page) gpus(snapshot *detector.Snapshot, sample *nvml.Sample, now time.Time) {
	for _, g := range join(snapshot, sample, p.sources.Freshness, now) {
		p.flag(gpuUp, g.up, g.uuid, g.index)
		p.info(g, snapshot.Driver)
		if g.view != nil {
			p.verdict(g)
		}
		p.xids(g)
		if g.sample == nil {
			continue
		}
		p.at(gpuLastAnswer, g.sample.Answered, g.uuid, g.index)
		p.called(g.sample.Calls.Readings, g.uuid, g.index, "readings")
		p.called(g.sample.Calls.Health, g.uuid, g.index, "health")
		if g.readings {
			p.readings(g, &g.sample.Readings)
		}
		if g.health {
			p.health(g, &g.sample.Health)
		}
	}
}

func (p *page) info(g gpu, driver detector.DriverState) {
	var is nvml.GPU
	if v := g.view; v != nil {
		is = nvml.GPU{PCI: v.PCI, Name: v.Name, Architecture: v.Architecture, Serial: v.Serial, VBIOS: v.VBIOS, Minor: -1}
		if v.Minor != nil {
			is.Minor = *v.Minor
		}
	} else {
		is = g.sample.GPU
	}
	minor := ""
	if is.Minor >= 0 {
		minor = strconv.Itoa(is.Minor)
	}
	p.put(gpuInfo, 1, g.uuid, g.index, is.PCI, is.Name, is.Architecture, is.Serial, is.VBIOS, minor, driver.Version, driver.CUDA)
}

var statuses = []detector.Status{detector.Healthy, detector.Degraded, detector.Unhealthy, detector.Unknown}

func (p *page) verdict(g gpu) {
	for _, status := range statuses {
		p.flag(gpuStatus, g.view.Status == status, g.uuid, g.index, string(status))
	}
	for _, c := range g.view.Conditions {
		gi, ci := place(c.GPUInstance), place(c.ComputeInstance)
		p.put(gpuCondition, 1, g.uuid, g.index, gi, ci, string(c.Reason), string(c.Class), string(c.Effect))
	}
	for _, i := range g.view.Ignored {
		p.at(gpuIgnoredUntil, i.Until, g.uuid, g.index, string(i.Reason))
	}
	for _, i := range g.view.Instances {
		gi, ci := place(&i.GPUInstance), place(&i.ComputeInstance)
		p.put(gpuInstanceInfo, 1, g.uuid, g.index, gi, ci, i.UUID, i.Profile)
		is := g.view.InstanceStatus(i.GPUInstance, i.ComputeInstance)
		for _, status := range statuses {
			p.flag(gpuInstanceStatus, is == status, g.uuid, g.index, gi, ci, string(status))
		}
	}
}

// place is the label of a GPU or compute instance; empty: the whole of what it is in.
func place(instance *int) string {
	if instance == nil {
		return ""
	}
	return strconv.Itoa(*instance)
}

// xids writes a counter for each code that is worth an alert and each that
// occurred: PromQL sees an increase from zero, and none from nothing.
func (p *page) xids(g gpu) {
	var occurred []detector.XidCount
	if g.view != nil {
		occurred = g.view.Xids
	}
	alertable := p.alertable
	for len(alertable) > 0 || len(occurred) > 0 {
		if len(occurred) == 0 || len(alertable) > 0 && alertable[0] < occurred[0].Code {
			p.put(gpuXidErrors, 0, g.uuid, g.index, strconv.Itoa(alertable[0]))
			alertable = alertable[1:]
			continue
		}
		x, code := occurred[0], strconv.Itoa(occurred[0].Code)
		p.put(gpuXidErrors, float64(x.Count), g.uuid, g.index, code)
		p.at(gpuXidLast, x.Last, g.uuid, g.index, code)
		if len(alertable) > 0 && alertable[0] == x.Code {
			alertable = alertable[1:]
		}
		occurred = occurred[1:]
	}
}

func (p *page) called(c nvml.CallCount, labels ...string) {
	p.put(nvmlCalls, float64(c.Count), labels...)
	p.put(nvmlCallErrors, float64(c.Errors), labels...)
	p.put(nvmlCallSeconds, c.Time.Seconds(), labels...)
}
