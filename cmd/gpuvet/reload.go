package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"gpuvet.dev/detector"
	"gpuvet.dev/exporter"
)

// configLook is how often the configuration file is read. Its text is compared,
// so that it does not matter how it was replaced: in place, by rename, or as
// Kubernetes swaps the folder behind a ConfigMap's links.
const configLook = 5 * time.Second

// reloader takes the policy of a configuration file that has changed. A file is
// taken whole or not at all; what was in force stays so.
type reloader struct {
	path    string
	named   bool   // it must exist
	running config // what the daemon was started with
	// take brings a policy into force.
	take func(*detector.Policy)
	log  *zap.Logger

	tried  []byte // text of the last file that was tried; nil: there was none
	digest string // of the policy in force

	mu     sync.Mutex
	report exporter.Configuration
}

// newReloader makes a reloader for a daemon that has started with a file.
func newReloader(path string, named bool, running config, take func(*detector.Policy), log *zap.Logger) *reloader {
	return &reloader{
		path: path, named: named, running: running, take: take, log: log,
		tried: running.text, digest: running.policy.Digest(),
		report: exporter.Configuration{Path: path, Loaded: time.Now(), Rows: len(running.policy.Rows)},
	}
}

// configuration tells how the last look went.
func (r *reloader) configuration() exporter.Configuration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.report
}

// run looks at the file at each signal at once, and by itself every now and
// then, until ctx ends. By itself it takes a text that it has met twice: one
// that is being written might be half of it.
func (r *reloader) run(ctx context.Context, signals <-chan os.Signal) error {
	look := time.NewTicker(configLook)
	defer look.Stop()
	var met []byte
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-signals:
			r.log.Info("configuration is read again", zap.String("path", r.path))
			r.reload()
			met = r.tried
		case <-look.C:
			text, err := os.ReadFile(r.path)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				continue // the signal tells why; a look is not for that
			}
			if !same(text, r.tried) && same(text, met) {
				r.reload()
			}
			met = text
		}
	}
}

// same compares texts; no file is not an empty one.
func same(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

// reload takes the file as it is now.
func (r *reloader) reload() {
	next, err := loadConfig(r.path, r.named)
	r.tried = next.text
	report := r.configuration()
	report.Err = err
	if err != nil {
		r.log.Error("configuration is not taken; the one before stays in force", zap.Error(err))
		r.tell(report)
		return
	}
	report.Loaded, report.Rows = time.Now(), len(next.policy.Rows)
	if digest := next.policy.Digest(); digest != r.digest {
		r.take(next.policy)
		r.digest = digest
		r.log.Info("policy changed", zap.String("policy", digest), zap.Int("rows", len(next.policy.Rows)))
	}
	if restart := r.running.changed(next); !slices.Equal(restart, report.Restart) {
		report.Restart = restart
		if len(restart) > 0 {
			r.log.Warn("sections of the configuration need a restart", zap.Strings("sections", restart))
		}
	}
	r.tell(report)
}

func (r *reloader) tell(report exporter.Configuration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report = report
}
