package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// Origin says where a loaded payload comes from.
type Origin struct {
	Source Source
	// Refused says why a better source was not taken: with Previous why not
	// the current file, with None why neither. It is nil when nothing was
	// amiss; None with nil is a first start.
	Refused error
	// Damaged are the paths under which refused files were kept.
	Damaged []string
}

// Source is one of the two state files, or none.
type Source int

// The sources, from the worst to the best.
const (
	None     Source = iota // nothing to load: the state starts afresh
	Previous               // the payload before the last one
	Current                // the payload that was saved last
)

func (s Source) String() string {
	switch s {
	case None:
		return "none"
	case Previous:
		return "previous"
	case Current:
		return "current"
	}
	return fmt.Sprintf("Source(%d)", int(s))
}

// Load gives the payload that was saved last. If its file is torn or does not
// match its checksum, Load gives the previous payload, and if that one is
// damaged too, none: a node whose state is lost must still be watched. Damaged
// files are renamed, never removed, and the Origin names them.
//
// ErrNewer and files that may not be read give an error.
func (d *Dir) Load() ([]byte, Origin, error) {
	d.refused = nil
	var origin Origin
	for _, c := range []struct {
		source Source
		name   string
	}{{Current, "state"}, {Previous, "state.previous"}} {
		payload, err := d.read(c.name)
		if err == nil {
			origin.Source = c.source
			d.loaded = true
			return payload, d.judged(origin), nil
		}
		if !damaged(err) && !errors.Is(err, fs.ErrNotExist) {
			return nil, Origin{}, fmt.Errorf("load state: %w", err)
		}
		if damaged(err) {
			d.refused = append(d.refused, c.name)
		}
		origin.Refused = errors.Join(origin.Refused, err)
	}
	if len(d.refused) == 0 {
		origin.Refused = nil // two files that never were are a first start
	}
	d.loaded = true
	return nil, d.judged(origin), nil
}

// judged puts the refused files aside and completes the origin. Where that
// cannot be done now, the next Save does it before it replaces anything.
func (d *Dir) judged(origin Origin) Origin {
	var err error
	if origin.Damaged, err = d.putAside(); err != nil {
		origin.Refused = errors.Join(origin.Refused, err)
	}
	return origin
}

// putAside renames each refused file to the first free state.damaged-N.
func (d *Dir) putAside() ([]string, error) {
	var kept []string
	for n := 1; len(d.refused) > 0; n++ {
		aside := d.file(fmt.Sprintf("state.damaged-%d", n))
		if _, err := os.Lstat(aside); !errors.Is(err, fs.ErrNotExist) {
			if err != nil {
				return kept, fmt.Errorf("keep damaged state: %w", err)
			}
			continue
		}
		if err := os.Rename(d.file(d.refused[0]), aside); err != nil {
			return kept, fmt.Errorf("keep damaged state: %w", err)
		}
		kept = append(kept, aside)
		d.refused = d.refused[1:]
	}
	return kept, nil
}

// damagedError is a file that is there and cannot be what was saved.
type damagedError struct {
	path  string
	cause error
}

func (e *damagedError) Error() string { return e.path + " is damaged: " + e.cause.Error() }
func (e *damagedError) Unwrap() error { return e.cause }

func damaged(err error) bool {
	var d *damagedError
	return errors.As(err, &d)
}

func (d *Dir) read(name string) ([]byte, error) {
	path := d.file(name)
	content, err := os.ReadFile(path)
	if errors.Is(err, syscall.EIO) { // a block of the disk is gone
		return nil, &damagedError{path, err}
	}
	if err != nil {
		return nil, err
	}
	payload, err := unframe(content)
	if errors.Is(err, ErrNewer) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err != nil {
		return nil, &damagedError{path, err}
	}
	return payload, nil
}
