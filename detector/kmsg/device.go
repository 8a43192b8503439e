package kmsg

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// DefaultPath is the kernel log of the machine, in a container too if the
// device was given to it.
const DefaultPath = "/dev/kmsg"

// ErrNotLog is the error of [Open] for a path that is no kernel log.
var ErrNotLog = errors.New("not a kernel log")

// Open opens the kernel log at path, at its oldest record. A [Reader] made so
// delivers what lies behind after; where after is of another boot, everything.
// It starts nothing; Close it when its Run has returned.
//
// The path names the kernel's log device, or a FIFO with records of the same
// format, one a line.
func Open(path string, after Cursor) (*Reader, error) {
	boot, err := BootID()
	if err != nil {
		return nil, err
	}
	fd, fifo, err := openLog(path)
	if err != nil {
		return nil, err
	}
	r := newReader(path, boot, after)
	r.fd, r.fifo = fd, fifo
	r.read = func(b []byte) (int, error) { return unix.Read(fd, b) }
	r.rewind = func() error {
		_, err := unix.Seek(fd, 0, unix.SEEK_SET)
		return err
	}
	if !fifo {
		if err := r.rewind(); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("seek %s to the oldest record: %w", path, err)
		}
	}
	return r, nil
}

// BootID names this boot: the kernel draws it at random when it starts.
func BootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(id)), nil
}

// kmsgDevice is major 1, minor 11 in the kernel's list of devices.
var kmsgDevice = unix.Mkdev(1, 11)

func openLog(path string) (fd int, fifo bool, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return -1, false, openError(path, err)
	}
	flags := unix.O_NONBLOCK | unix.O_CLOEXEC
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		if st.Rdev != kmsgDevice {
			return -1, false, fmt.Errorf("open %s: %w: device %d:%d, the kernel's is 1:11",
				path, ErrNotLog, unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		flags |= unix.O_RDONLY
	case unix.S_IFIFO:
		// A FIFO without a writer is at its end all the time; being a writer
		// ourselves, we can wait for the next one.
		flags |= unix.O_RDWR
		fifo = true
	case unix.S_IFREG:
		return -1, false, fmt.Errorf("open %s: %w: a regular file; saved logs go to gpuvet replay or gpuvet parse", path, ErrNotLog)
	default:
		return -1, false, fmt.Errorf("open %s: %w: neither the kernel's log device nor a FIFO", path, ErrNotLog)
	}
	for {
		fd, err = unix.Open(path, flags, 0)
		if err == nil {
			return fd, fifo, nil
		}
		if err != unix.EINTR {
			return -1, false, openError(path, err)
		}
	}
}

func openError(path string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("open %s: %w (a container must be given the host's %s)", path, err, DefaultPath)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("open %s: %w (the kernel log takes root, or CAP_SYSLOG and read access to the device)", path, err)
	}
	return fmt.Errorf("open %s: %w", path, err)
}
