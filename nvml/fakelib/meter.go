package fakelib

import (
	"time"

	"gpuvet.dev/nvml"
	"gpuvet.dev/nvml/fake"
)

// meter adds up what a GPU does: its samples, its counters of bytes and its GPM
// metrics. Between two states it goes on as in the first.
type meter struct {
	at      time.Time // of the state before; zero: there was none
	load    int
	sampled time.Time
	rates   rates
}

// rates are what is added up, a second.
type rates struct {
	metrics                [maxMetrics]nvml.Maybe[float64]
	pcieSent, pcieReceived float64 // bytes
	linkSent, linkReceived float64 // bytes of one link
}

// run goes on to the state s.
func (m *meter) run(p *gpu, g *fake.GPUState, s fake.State) {
	if m.load != s.Load {
		*m = meter{load: s.Load}
		p.PCIeSent, p.PCIeReceived = 0, 0
		for i := range p.Link {
			p.Link[i].Sent, p.Link[i].Received = 0, 0
		}
	}
	if !m.at.IsZero() {
		m.add(p, s.Time.Sub(m.at))
	}
	m.at, m.rates = s.Time, ratesOf(g)
	p.Updated = uint64(s.Time.UnixMicro())
	p.MetricPresent = [maxMetrics / 64]uint64{}
	for id, rate := range m.rates.metrics {
		if rate.OK {
			p.MetricPresent[id/64] |= 1 << (id % 64)
		}
	}
	p.PCIeSentKBps, p.PCIeReceivedKBps = uint64(m.rates.pcieSent/1000), uint64(m.rates.pcieReceived/1000)
	if s.Time.Sub(m.sampled) >= interval {
		m.sampled = s.Time
		m.sample(p)
	}
}

func (m *meter) add(p *gpu, passed time.Duration) {
	for id, rate := range m.rates.metrics {
		if rate.OK {
			const thousandths = 1000
			p.Metric[id] += uint64(rate.Value * thousandths * float64(passed.Microseconds()))
		}
	}
	seconds := passed.Seconds()
	p.PCIeSent += uint64(m.rates.pcieSent * seconds)
	p.PCIeReceived += uint64(m.rates.pcieReceived * seconds)
	for i := range p.Links {
		if p.Link[i].State == 1 {
			p.Link[i].Sent += uint64(m.rates.linkSent * seconds)
			p.Link[i].Received += uint64(m.rates.linkReceived * seconds)
		}
	}
}

func (m *meter) sample(p *gpu) {
	p.Sample[p.Samples%maxSamples] = sample{
		Time: p.Updated, PowerMW: uint32(p.PowerMW), Utilization: uint32(p.Utilization), MemoryUtilization: uint32(p.MemoryUtilization),
		SMMHz: uint32(p.ClockMHz[1]), MemoryMHz: uint32(p.ClockMHz[2]),
	}
	p.Samples++
}

// ratesOf says what a GPU does by how busy it is, where it is not scripted: the
// shares are those of a training job with matrices of half precision.
func ratesOf(g *fake.GPUState) rates {
	var r rates
	busy, memory := g.Readings.Utilization.Value, g.Readings.MemoryUtilization.Value
	const mebibyte, mega = 1 << 20, 1e6
	r.pcieSent, r.pcieReceived = busy*2e9, busy*1e9
	r.linkSent = busy * 0.3 * float64(g.Model.NVLink.Speed) * mega
	r.linkReceived = r.linkSent
	links := float64(len(g.NVLinks))
	if g.Model.GPM {
		for id, value := range map[int]float64{
			1: 100 * busy, 2: 95 * busy, 3: 55 * busy, 4: 20 * busy, // graphics, SM, occupancy, integer
			5: 40 * busy, 6: 0, 7: 40 * busy, 8: 0, 9: 0, // tensor: any, DFMA, HMMA, DMMA, IMMA
			10: 100 * memory, 11: 0, 12: 15 * busy, 13: 10 * busy, // DRAM, FP64, FP32, FP16
			20: r.pcieSent / mebibyte, 21: r.pcieReceived / mebibyte,
			60: links * r.linkReceived / mebibyte, 61: links * r.linkSent / mebibyte,
		} {
			r.metrics[id] = nvml.Some(value)
		}
	}
	for id, value := range g.Metrics {
		if id > 0 && id < maxMetrics {
			r.metrics[id] = value
		}
	}
	return r
}
