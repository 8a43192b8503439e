// Package state keeps the one file that must survive: the daemon's folded
// state, its cursors and its claims, as one opaque payload.
//
// [Open] locks the folder for this process, [Dir.Load] gives what was saved
// last and [Dir.Save] replaces it as a whole. After a crash at any instant,
// the power failing included, Load gives the payload of the last Save that
// returned, or the one that was under way; never a mixture, and never nothing.
//
// The folder holds
//
//	lock             flock(2) by the daemon that uses it; its pid as text
//	state            what was saved last
//	state.previous   what was saved before that
//	state.new        a Save that was cut short; never read
//	state.damaged-N  a file that Load refused, kept as evidence
//
// A state file is one line of text, "gpuvet-state VERSION LENGTH SHA256", and
// then LENGTH bytes of payload with that SHA-256, so that
// tail -n +2 state shows the payload and … | sha256sum checks it.
package state

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// LockedError says that another process uses the folder. A standby asks for it
// with errors.As and tries again.
type LockedError struct {
	Dir string
	PID int // of the other process; 0 in the instant between its lock and its pid
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("another gpuvet uses %s", e.Dir)
	}
	return fmt.Sprintf("another gpuvet (pid %d) uses %s", e.PID, e.Dir)
}

// Dir is a state folder that this process has locked. Its methods are for one
// goroutine.
type Dir struct {
	path string
	lock *os.File
	// loaded says that what lies in the folder has been judged: nothing that
	// nobody looked at, or that a newer gpuvet wrote, may be replaced.
	loaded bool
	// refused are the damaged files that still stand where Save would
	// replace them.
	refused []string
}

// Open makes the folder if it is not there (mode 0700) and locks it. It gives
// a [*LockedError] if another process uses it.
func Open(dir string) (*Dir, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state folder %s: %w", dir, err)
	}
	path := filepath.Join(dir, "lock")
	// Close-on-exec (the default of package os) matters here: a child that
	// outlives the daemon must not hold the lock for it.
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state folder %s is not writable: %w", dir, err)
	}
	if err := flock(lock); err != nil {
		defer lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &LockedError{Dir: dir, PID: holder(lock)}
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	// The pid only serves the message above. A full disk must not keep the
	// daemon from starting, so what cannot be written is left out.
	if lock.Truncate(0) == nil {
		_, _ = lock.WriteAt(strconv.AppendInt(nil, int64(os.Getpid()), 10), 0)
	}
	return &Dir{path: dir, lock: lock}, nil
}

// Close unlocks the folder.
func (d *Dir) Close() error {
	return d.lock.Close()
}

func (d *Dir) file(name string) string { return filepath.Join(d.path, name) }

func flock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// holder is the pid in the lock, or 0.
func holder(lock io.ReaderAt) int {
	text := make([]byte, 20)
	n, _ := lock.ReadAt(text, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	if err != nil {
		return 0
	}
	return pid
}
