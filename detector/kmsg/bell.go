package kmsg

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// bell ends a poll(2) when a context ends: a blocking read of the kernel log
// could not be ended at all.
type bell struct {
	rung    atomic.Bool
	eventfd int
	silence func() bool // false: the bell rings or has rung
	done    chan struct{}
}

func newBell(ctx context.Context) (*bell, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make eventfd: %w", err)
	}
	b := &bell{eventfd: fd, done: make(chan struct{})}
	b.silence = context.AfterFunc(ctx, b.ring)
	return b, nil
}

func (b *bell) ring() {
	defer close(b.done)
	b.rung.Store(true)
	_, _ = unix.Write(b.eventfd, binary.NativeEndian.AppendUint64(nil, 1))
}

// wait returns when fd can be read or the bell rings.
func (b *bell) wait(fd int) error {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(b.eventfd), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
		return err
	}
	if fds[0].Revents&unix.POLLNVAL != 0 {
		return unix.EBADF
	}
	return nil
}

// close waits for a ring under way: its descriptor must not be another's by
// the time it writes.
func (b *bell) close() {
	if !b.silence() {
		<-b.done
	}
	_ = unix.Close(b.eventfd)
}
