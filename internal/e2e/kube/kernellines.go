package kube

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// kernelLineSwitch says what becomes of lines that programs write to /dev/kmsg.
// It is "ratelimit" by default: ten lines a burst, the rest dropped in silence.
const kernelLineSwitch = "/proc/sys/kernel/printk_devkmsg"

// keptSwitch holds the value to put back. Like the value itself it does not
// survive a boot.
const keptSwitch = "/run/gpuvet-e2e-printk_devkmsg"

// acceptKernelLines makes the kernel log take every line. The switch is one for
// the machine, so the last of several runs puts it back; the file that they
// lock keeps the value from before the first.
func acceptKernelLines() (restore func(), err error) {
	file, err := os.OpenFile(keptSwitch, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("share kernel log switch: %w", err)
	}
	alone := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
	if alone {
		if err := noteKernelLineSwitch(file); err != nil {
			return nil, errors.Join(err, file.Close())
		}
	}
	if err := os.WriteFile(kernelLineSwitch, []byte("on\n"), 0o644); err != nil {
		return nil, errors.Join(fmt.Errorf("accept lines in the kernel log: %w", err), file.Close())
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_SH); err != nil {
		return nil, errors.Join(fmt.Errorf("share kernel log switch: %w", err), file.Close())
	}
	return func() {
		defer file.Close()
		if unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
			return // another run still needs it
		}
		if before, err := os.ReadFile(keptSwitch); err == nil && len(before) > 0 {
			// Read as a whole line: the kernel insists on the newline.
			_ = os.WriteFile(kernelLineSwitch, before, 0o644)
			_ = file.Truncate(0)
		}
	}, nil
}

// noteKernelLineSwitch keeps the value to put back. A value that is already
// there was left by a run that could not put it back.
func noteKernelLineSwitch(file *os.File) error {
	if info, err := file.Stat(); err != nil || info.Size() > 0 {
		return err
	}
	before, err := os.ReadFile(kernelLineSwitch)
	if err != nil {
		return fmt.Errorf("read kernel log switch: %w", err)
	}
	if _, err := file.Write(before); err != nil {
		return fmt.Errorf("note kernel log switch: %w", err)
	}
	return nil
}
