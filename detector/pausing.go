package detector

import (
	"context"
	"iter"
	"sync"
	"time"

	"go.uber.org/zap"

	"gpuvet.dev/nvml"
)

const (
	// closeLimit is how long one attempt to close NVML waits.
	closeLimit = 2 * time.Second
	// closeRetry is the pause between two of them.
	closeRetry = 500 * time.Millisecond
)

// DriverPauses keeps NVML closed while the newest snapshot has a pause, and open
// otherwise, until ctx ends; snapshots must end with it. Closing is tried again
// until nothing holds the driver. When NVML is opened again, refresh has the
// inventory and the health of every GPU taken at once.
func DriverPauses(ctx context.Context, snapshots iter.Seq[*Snapshot], v *nvml.Valve, refresh func(pci string), log *zap.Logger) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	newest := make(chan *Snapshot, 1)
	wg.Go(func() {
		for s := range snapshots {
			select {
			case <-newest:
			default:
			}
			newest <- s // there is room: nobody else sends
		}
	})
	p := pauser{valve: v, refresh: refresh, log: log}
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case p.snapshot = <-newest:
		case <-again:
		}
		again = nil
		if !p.settle(ctx) {
			again = time.After(closeRetry)
		}
	}
}

// pauser brings the valve to what the newest snapshot says.
type pauser struct {
	valve    *nvml.Valve
	refresh  func(pci string)
	log      *zap.Logger
	snapshot *Snapshot

	began  bool   // it was opened or closed once
	paused bool   // what it was brought to last
	free   bool   // and nothing holds the driver
	told   string // what held it
}

// settle reports whether there is nothing to try again.
func (p *pauser) settle(ctx context.Context) bool {
	paused := p.snapshot.Pause != nil
	if changed := paused != p.paused || !p.began; changed {
		p.free, p.told = false, ""
		switch {
		case paused:
			p.log.Info("closing NVML", zap.Stringer("pause", p.snapshot.Pause))
		default:
			p.open()
		}
	}
	p.began, p.paused = true, paused
	if !paused || p.free {
		return true
	}
	limited, cancel := context.WithTimeout(ctx, closeLimit)
	defer cancel()
	err := p.valve.Close(limited)
	switch {
	case ctx.Err() != nil:
	case err == nil:
		p.free = true
		p.log.Info("NVML is closed: nothing of gpuvet holds the driver")
		p.ask()
	case err.Error() != p.told:
		p.told = err.Error()
		p.log.Warn("NVML is not closed yet; trying again", zap.Error(err))
	}
	return p.free
}

func (p *pauser) open() {
	p.valve.Open()
	if p.began {
		p.log.Info("NVML is open again")
	}
	p.ask()
}

// ask has everything asked for at once, if only to hear that nothing may be.
func (p *pauser) ask() {
	p.refresh("")
	for _, g := range p.snapshot.GPUs {
		p.refresh(g.PCI)
	}
}
