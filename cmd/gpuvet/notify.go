package main

import (
	"context"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"

	"gpuvet.dev/detector"
)

// notify tells systemd when the daemon is ready, that it lives, and that it
// stops. Without systemd it only waits.
func notify(ctx context.Context, d *detector.Detector, log *zap.Logger) error {
	for snapshot := range d.Watch(ctx) {
		if snapshot.Ready() {
			log.Info("ready", zap.Uint64("seq", snapshot.Seq), zap.Int("gpus", len(snapshot.GPUs)),
				zap.String("driver", snapshot.Driver.Version), zap.String("missing", snapshot.Driver.Missing))
			send(log, systemd.SdNotifyReady)
			break
		}
	}
	defer send(log, systemd.SdNotifyStopping)
	every, err := systemd.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(every / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if d.Alive() == nil {
				send(log, systemd.SdNotifyWatchdog)
			}
		}
	}
}

func send(log *zap.Logger, message string) {
	if _, err := systemd.SdNotify(false, message); err != nil {
		log.Warn("notify systemd", zap.String("message", message), zap.Error(err))
	}
}
