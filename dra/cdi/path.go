package cdi

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// device says why a path is no device node, as the end of a sentence about it.
func device(path string) error {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return cause(err)
	case info.Mode()&fs.ModeDevice == 0:
		return errors.New("is no device node")
	}
	return nil
}

// cause is the error without the path, which is said already.
func cause(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("does not exist")
	}
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("cannot be read (%w)", at.Err)
	}
	return err
}

// onNode gives the path on the node of one that is seen below host.
func onNode(host, seen string) string {
	if rel, err := filepath.Rel(host, seen); err == nil && filepath.IsLocal(rel) {
		return "/" + rel
	}
	return seen
}
