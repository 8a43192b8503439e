package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"gpuvet.dev/internal/faultpoint"
)

// Save replaces the state by payload and returns once it is on the disk; the
// state before it becomes the previous one. After an error the last state is
// as it was, and Save may be called again.
func (d *Dir) Save(payload []byte) error {
	if !d.loaded {
		if _, _, err := d.Load(); err != nil {
			return fmt.Errorf("save state: %w", err)
		}
	}
	if err := d.replace(payload); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return nil
}

// replace goes through two renames. Between them there is no current file,
// and Load finds the same payload as the previous one; what is complete on the
// disk under a name that Load knows is never fewer than one file.
func (d *Dir) replace(payload []byte) error {
	fresh, current := d.file("state.new"), d.file("state")
	if err := write(fresh, payload); err != nil {
		// A partial file is harmless, but on a full disk its space is missed.
		_ = os.Remove(fresh)
		return err
	}
	faultpoint.Hit("state-written")
	if _, err := d.putAside(); err != nil {
		return err
	}
	if err := os.Rename(current, d.file("state.previous")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	faultpoint.Hit("state-kept")
	if err := os.Rename(fresh, current); err != nil {
		return err
	}
	faultpoint.Hit("state-renamed")
	return syncFolder(d.path)
}

// write makes a state file and forces it to the disk.
func write(path string, payload []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(header(payload), payload...))
	if err == nil {
		err = f.Sync()
	}
	// Some file systems report a full quota only on close.
	return errors.Join(err, f.Close())
}

func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
