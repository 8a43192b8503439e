package detector

import (
	"context"
	"errors"
	"time"

	"gpuvet.dev/nvml"
)

// saveLimit is how long a driver event waits for the disk.
const saveLimit = 2 * time.Second

// pausedStream is how often a stream that was paused is tried.
const pausedStream = 200 * time.Millisecond

// DriverEvents emits the events that the driver reports, until ctx ends. A
// stream that breaks is opened again after a pause that grows to 5 s. refresh
// asks for the health of a GPU, or with an empty address for the inventory.
func DriverEvents(ctx context.Context, d nvml.Driver, submit func(context.Context, Event) (*Snapshot, error), refresh func(pci string)) error {
	pause := 100 * time.Millisecond
	for {
		began := time.Now()
		err := d.Events(ctx, func(e nvml.Event) {
			refresh(e.PCI)
			if e.Type == nvml.EventMIGConfiguration {
				refresh("")
			}
			// The driver forgets what it has told: it should be on disk before the
			// next one is asked for. If the disk refuses or hangs, detection goes on.
			limit, cancel := context.WithTimeout(ctx, saveLimit)
			defer cancel()
			_, _ = submit(limit, FromDriver(e))
		})
		if ended := ctx.Err() != nil || err == nil; ended {
			return nil
		}
		if errors.Is(err, nvml.ErrPaused) {
			pause = pausedStream
		} else {
			// The driver may have gone, or been loaded again.
			refresh("")
			if time.Since(began) > time.Minute {
				pause = 100 * time.Millisecond
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
			pause = min(2*pause, 5*time.Second)
		}
	}
}
