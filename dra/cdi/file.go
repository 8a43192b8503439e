package cdi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/specs-go"

	"gpuvet.dev/internal/faultpoint"
)

// Runtimes read the files that end in .json or .yaml, and no others.
const (
	finished   = ".json"
	unfinished = ".json.new"
)

// Remove removes the spec of a claim. That there is none is no error. It does not wait
// for those who look at what others have put on the node.
func (s *Specs) Remove(claim string) error {
	for _, suffix := range []string{finished, unfinished} {
		if err := os.Remove(s.file(claim, suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove CDI spec of claim %s: %w", claim, err)
		}
	}
	return nil
}

// List gives the claims that have a spec, by UID and in order; those too of
// which only the beginning was written before a crash, so that whoever removes
// what it does not know removes that as well.
func (s *Specs) List() ([]string, error) {
	entries, err := os.ReadDir(s.o.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list CDI specs: %w", err)
	}
	var claims []string
	for _, e := range entries {
		rest, ours := strings.CutPrefix(e.Name(), prefix)
		for _, suffix := range []string{finished, unfinished} {
			if claim, ok := strings.CutSuffix(rest, suffix); ours && ok {
				claims = append(claims, claim)
			}
		}
	}
	slices.Sort(claims)
	return slices.Compact(claims), nil
}

// noted is the annotation of a spec that has its note. Annotations of the whole spec
// are for whoever reads it: runtimes since CDI 0.6.0 let them be.
const noted = vendor + "/note"

// Note is what [Specs.Write] was given with the spec of a claim; empty if it was given
// nothing. The error is fs.ErrNotExist if the claim has no spec.
func (s *Specs) Note(claim string) (string, error) {
	spec, err := cdi.ReadSpec(s.file(claim, finished), 0)
	if err != nil {
		return "", fmt.Errorf("read CDI spec of claim %s: %w", claim, err)
	}
	return spec.Annotations[noted], nil
}

// put replaces the spec of a claim. What a runtime reads is at any time the old
// spec or the new one, whole.
func (s *Specs) put(claim string, spec *specs.Spec) error {
	var err error
	if spec.Version, err = specs.MinimumRequiredVersion(spec); err != nil {
		return err
	}
	content, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.o.Dir, 0o755); err != nil {
		return err
	}
	fresh := s.file(claim, unfinished)
	if err := write(fresh, content); err != nil {
		return err
	}
	faultpoint.Hit("cdi-written")
	// The library has no other way to ask whether a runtime would take it.
	if _, err := cdi.ReadSpec(fresh, 0); err != nil {
		return err
	}
	return os.Rename(fresh, s.file(claim, finished))
}

// write makes a file and forces its content to the disk, before it gets the name
// by which it is read. That the name is on the disk does not matter: the kubelet
// prepares every claim again after a boot. In a tmpfs, where these files mostly
// are, none of it takes time.
func write(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// prefix begins the names of our files; the claim follows.
var prefix = cdi.GenerateTransientSpecName(vendor, class, "")

func (s *Specs) file(claim, suffix string) string {
	return filepath.Join(s.o.Dir, cdi.GenerateTransientSpecName(vendor, class, claim)+suffix)
}
