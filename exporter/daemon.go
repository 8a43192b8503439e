package exporter

import (
	"maps"
	"slices"
	"strings"

	"gpuvet.dev/detector"
	"gpuvet.dev/nvml"
)

// daemon writes what is about the node and about gpuvet itself.
func (p *page) daemon(snapshot *detector.Snapshot, sample *nvml.Sample) {
	s := &p.sources
	p.put(buildInfo, 1, s.Version, goVersion())
	p.flag(standingBy, false)
	p.flag(acceptingUserLines, s.AcceptsUserLines)
	if d := snapshot.Driver; d.Asked {
		p.flag(driverUp, d.Missing == "" && !d.Stuck)
	}
	p.flag(paused, snapshot.Pause != nil)
	if snapshot.Pause != nil {
		p.at(pausedUntil, snapshot.Pause.Until)
	}
	for _, c := range snapshot.Node {
		p.put(nodeCondition, 1, string(c.Reason), string(c.Class), string(c.Effect))
	}
	p.put(snapshotSequence, float64(snapshot.Seq))
	p.at(snapshotTime, snapshot.Time)
	p.counters(snapshot.Counters)
	if s.KernelLog != nil {
		p.flag(logUp, s.KernelLog.Reading())
		p.put(logRecords, float64(s.KernelLog.Records()))
		p.put(logSpoofed, float64(s.KernelLog.Spoofed()))
	}
	if s.Sample != nil {
		p.called(sample.InventoryCalls, "", "", "inventory")
	}
	if s.Workers != nil {
		p.workers(s.Workers())
	}
	if s.Allocation != nil {
		p.allocation(s.Allocation(), snapshot.Claims)
	}
	for _, o := range s.Outputs {
		p.output(o.Name, o.Progress())
	}
	if s.Kept != nil {
		p.kept(s.Kept())
	}
	if s.Configuration != nil {
		p.configuration(s.Configuration())
	}
}

func (p *page) counters(c detector.Counters) {
	for _, key := range slices.Sorted(maps.Keys(c.Events)) {
		source, kind, _ := strings.Cut(key, "/")
		p.put(events, float64(c.Events[key]), source, kind)
	}
	p.put(logGaps, float64(c.Gaps))
	p.put(logLost, float64(c.Lost))
	p.put(undecoded, float64(c.Undecoded))
}

func (p *page) workers(w Workers) {
	p.put(workerStarts, float64(w.Started))
	p.put(workerDeaths, float64(w.Died))
	p.put(workerKills, float64(w.Killed))
	p.put(workersStuck, float64(w.Stuck))
	p.flag(driverEventsUp, w.Events)
}

func (p *page) output(name string, progress Progress) {
	p.flag(outputUp, progress.Err == nil, name)
	if !progress.At.IsZero() {
		p.put(outputSequence, float64(progress.Seq), name)
		p.at(outputTime, progress.At, name)
	}
}

func (p *page) kept(k detector.Kept) {
	p.at(stateSaved, k.Saved)
	p.flag(stateSaveError, k.SaveError != "")
	p.put(trailLost, float64(k.TrailLost))
}

// sample is the newest one; an empty one where there is none.
func (s *Sources) sample() *nvml.Sample {
	if s.Sample != nil {
		if sample := s.Sample(); sample != nil {
			return sample
		}
	}
	return &nvml.Sample{}
}
