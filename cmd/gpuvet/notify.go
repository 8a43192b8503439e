package main

import (
	"context"
	"net"
	"os"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"

	"gpuvet.dev/detector"
)

// notify tells systemd when the daemon is ready, that it lives, and that it
// stops. One that stood by was ready before, and its watchdog runs. Without systemd
// it only waits.
func notify(ctx context.Context, d *detector.Detector, stoodBy bool, log *zap.Logger) error {
	defer sendStopping(ctx, log)
	var feeding sync.WaitGroup
	defer feeding.Wait()
	if stoodBy {
		feeding.Go(func() { feedWatchdog(ctx, d.Alive, log) })
	}
	for snapshot := range d.Watch(ctx) {
		if !snapshot.Ready() {
			continue
		}
		log.Info("ready", zap.Uint64("seq", snapshot.Seq), zap.Int("gpus", len(snapshot.GPUs)),
			zap.String("driver", snapshot.Driver.Version), zap.String("missing", snapshot.Driver.Missing))
		if !stoodBy {
			send(ctx, log, systemd.SdNotifyReady)
			feedWatchdog(ctx, d.Alive, log)
		}
		break
	}
	<-ctx.Done()
	return nil
}

// notifyStandby tells systemd that a standby is ready, and that it lives, until
// ctx ends.
func notifyStandby(ctx context.Context, log *zap.Logger) {
	send(ctx, log, systemd.SdNotifyReady)
	feedWatchdog(ctx, func() error { return nil }, log)
}

// feedWatchdog feeds systemd's watchdog, if it has one for us, while alive gives
// no error.
func feedWatchdog(ctx context.Context, alive func() error, log *zap.Logger) {
	every, err := systemd.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		return
	}
	tick := time.NewTicker(every / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if alive() == nil {
				send(ctx, log, systemd.SdNotifyWatchdog)
			}
		}
	}
}

// stoppingLimit is how long systemd may take to hear that we stop: others wait for
// what comes then.
const stoppingLimit = 100 * time.Millisecond

func sendStopping(ctx context.Context, log *zap.Logger) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stoppingLimit)
	defer cancel()
	send(ctx, log, systemd.SdNotifyStopping)
}

// send tells systemd, if there is one, and waits until it takes the message or ctx
// ends: its socket has room for a few that it has not read.
func send(ctx context.Context, log *zap.Logger, message string) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	if err := sendTo(ctx, socket, message); err != nil {
		log.Warn("notify systemd", zap.String("message", message), zap.Error(err))
	}
}

func sendTo(ctx context.Context, socket, message string) error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetWriteDeadline(time.Unix(0, 1)) })()
	_, err = conn.Write([]byte(message))
	return err
}
