package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"gpuvet.dev/exporter"
	"gpuvet.dev/internal/state"
)

// standbyPoll is how often a standby tries whether the state folder is free.
const standbyPoll = 50 * time.Millisecond

// lock locks the state folder. While another daemon uses it that is an error, or
// with --standby waited for; it gives nil if ctx ends before.
func (d *daemon) lock(ctx context.Context, servers *errgroup.Group) (*state.Dir, error) {
	dir, err := state.Open(d.o.stateDir)
	if holder, ok := errors.AsType[*state.LockedError](err); ok {
		if d.o.standby {
			return d.standBy(ctx, servers, holder)
		}
		return nil, fmt.Errorf("--state-dir: %w: expected another folder, or --standby to wait for its end", err)
	}
	if err != nil {
		return nil, fmt.Errorf("--state-dir: %w", err)
	}
	return dir, nil
}

// standBy waits until no other daemon uses the state folder. Meanwhile the port
// answers, and stays open when the wait is over: to the kubelet and to systemd a
// standby is ready. It touches nothing else that the other one uses.
func (d *daemon) standBy(ctx context.Context, servers *errgroup.Group, first *state.LockedError) (*state.Dir, error) {
	var err error
	if d.web, err = net.Listen("tcp", d.o.listen); err != nil {
		return nil, fmt.Errorf("--listen: %w", err)
	}
	var holder atomic.Pointer[state.LockedError]
	holder.Store(first)
	d.pages.Show(exporter.Standby(buildVersion(), func() string { return held(holder.Load()) }))
	servers.Go(func() error { return d.serveWeb(ctx) })
	began := time.Now()
	d.log.Info("standing by until another gpuvet ends", zap.Int("pid", first.PID), zap.String("state", first.Dir))

	waiting, over := context.WithCancel(ctx)
	var beside sync.WaitGroup
	beside.Go(func() { notifyStandby(waiting, d.log) })
	dir, err := awaitUnlocked(ctx, d.o.stateDir, func(now *state.LockedError) {
		if now.PID != 0 && holder.Swap(now).PID != now.PID {
			d.log.Info("another gpuvet took over; standing by until it ends", zap.Int("pid", now.PID))
		}
	})
	over()
	beside.Wait()
	switch {
	case err != nil:
		return nil, fmt.Errorf("--state-dir: %w", err)
	case dir == nil:
		sendStopping(ctx, d.log)
		return nil, nil
	}
	d.tookOver = time.Now()
	d.log.Info("taking over", zap.Int("from", holder.Load().PID), zap.Duration("after", d.tookOver.Sub(began)))
	return dir, nil
}

func held(by *state.LockedError) string {
	if by.PID == 0 {
		return "another gpuvet holds " + by.Dir
	}
	return fmt.Sprintf("pid %d holds %s", by.PID, by.Dir)
}

// awaitUnlocked locks the state folder as soon as nobody else does, and gives nil
// if ctx ends before. stillBy hears who has it, at every attempt.
func awaitUnlocked(ctx context.Context, path string, stillBy func(*state.LockedError)) (*state.Dir, error) {
	tick := time.NewTicker(standbyPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, nil
		case <-tick.C:
		}
		dir, err := state.Open(path)
		holder, ok := errors.AsType[*state.LockedError](err)
		if !ok {
			return dir, err
		}
		stillBy(holder)
	}
}
