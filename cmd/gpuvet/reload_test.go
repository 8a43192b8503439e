package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"gpuvet.dev/detector"
	"gpuvet.dev/exporter"
)

const noExecute = configHead + "policy: {rows: [{reason: GPULost, effect: NoExecute}]}\n"

// rewrite replaces a file of the test.
func rewrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// hangUp sends the signal that a reload is asked for with, to this process.
func hangUp(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

func (d *running) untilEffect(index int, e detector.Effect) {
	d.t.Helper()
	d.eventually("the effect is "+string(e), func() bool {
		g := d.gpu(index)
		return len(g.Conditions) > 0 && g.Conditions[0].Effect == e
	})
}

func TestHangupTakesThePolicyAndEndsNothing(t *testing.T) {
	dir, path := t.TempDir(), file(t, "gpuvet.yaml", configHead)
	d := startScenario(t, dir, losing, "--config", path)
	d.ready()
	d.untilEffect(1, detector.NoSchedule)
	before := d.metric("gpuvet_config_last_reload_timestamp_seconds")
	if before == "" || d.metric("gpuvet_config_reload_success") != "1" {
		t.Errorf("after the start: %q", before)
	}

	rewrite(t, path, noExecute)
	hangUp(t)
	d.untilEffect(1, detector.NoExecute)
	d.eventually("the time of the reload is told", func() bool {
		return d.metric("gpuvet_config_last_reload_timestamp_seconds") != before
	})

	rewrite(t, path, configHead+"policy: {rows: [{reason: GPULost, effect: NoExcute}]}\nnode: {taint: never}\n")
	hangUp(t)
	d.eventually("the bad file is told", func() bool { return d.metric("gpuvet_config_reload_success") == "0" })
	if status := d.status(); !strings.Contains(status, `configuration: not taken, the one before stays in force: `+path+`: policy.rows[0].effect: "NoExcute"`) {
		t.Errorf("status is\n%s", status)
	}
	if log := d.log.String(); !strings.Contains(log, "configuration is not taken; the one before stays in force") {
		t.Errorf("log is\n%s", log)
	}
	d.untilEffect(1, detector.NoExecute)

	rewrite(t, path, noExecute+"node: {taint: never}\n")
	hangUp(t)
	d.eventually("the good file is taken", func() bool { return d.metric("gpuvet_config_reload_success") == "1" })
	if status := d.status(); !strings.Contains(status, "configuration: needs a restart: node") || strings.Contains(status, "not taken") {
		t.Errorf("status is\n%s", status)
	}
	if code := d.end(); code != exitDone {
		t.Errorf("code %d", code)
	}

	// What was decided under each policy is replayed without the file.
	var told []string
	for line := range strings.Lines(output(t, "", "replay", filepath.Join(dir, "trail"))) {
		if f := strings.Fields(line); slices.Contains(f, "GPULost") {
			told = append(told, strings.Join(f[len(f)-3:], " "))
		}
	}
	if want := []string{"NoSchedule Xid 79", "hardware NoExecute policy"}; !slices.Equal(told, want) {
		t.Errorf("replayed %q, want %q", told, want)
	}
}

func TestRestartGoesOnUnderTheSamePolicy(t *testing.T) {
	dir, path := t.TempDir(), file(t, "gpuvet.yaml", noExecute)
	d := startScenario(t, dir, losing, "--config", path)
	d.ready()
	d.untilEffect(1, detector.NoExecute)
	d.end()
	again := startScenario(t, dir, driverless, "--config", path)
	again.ready()
	again.untilEffect(1, detector.NoExecute)
	for _, tr := range again.report().Snapshot.Transitions {
		if tr.Condition == detector.NotedPolicy && tr.Seq > 10 {
			t.Errorf("the restart is told as a change: %+v", tr)
		}
	}
	again.end()
	// Another policy at the start is a change.
	last := startScenario(t, dir, driverless)
	last.ready()
	last.untilEffect(1, detector.NoSchedule)
}

func TestFactThatWasIgnoredIsToldWhenItIsNoMore(t *testing.T) {
	path := file(t, "gpuvet.yaml", configHead+"policy: {rows: [{reason: GPULost, ignore: true}]}\n")
	d := startScenario(t, t.TempDir(), losing, "--config", path)
	d.ready()
	d.eventually("it is lost", func() bool { return xids(d.gpu(1).Xids) == "79×1 154×1" && !d.gpu(1).Fresh })
	if got := reasonsOf(d.gpu(1)); slices.Contains(got, detector.GPULost) {
		t.Errorf("ignored, and shown: %v", got)
	}
	rewrite(t, path, configHead)
	hangUp(t)
	d.eventually("the lost GPU is told", func() bool { return slices.Contains(reasonsOf(d.gpu(1)), detector.GPULost) })
}

// reloading is a reloader in a synctest bubble.
type reloading struct {
	*reloader
	mu    sync.Mutex
	taken []string
}

func startReloader(t *testing.T, path string, named bool, signals <-chan os.Signal) *reloading {
	t.Helper()
	conf, err := loadConfig(path, named)
	if err != nil {
		t.Fatal(err)
	}
	r := &reloading{}
	r.reloader = newReloader(path, named, conf, func(p *detector.Policy) {
		r.mu.Lock()
		defer r.mu.Unlock()
		var keys []string
		for _, row := range p.Rows {
			keys = append(keys, row.Key())
		}
		r.taken = append(r.taken, strings.Join(keys, " "))
	}, zap.NewNop())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.run(ctx, signals) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// took gives the policies that were taken since it was asked last.
func (r *reloading) took() []string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.taken
	r.taken = nil
	return taken
}

func TestChangedFileIsTakenWhenItHasSettled(t *testing.T) {
	path := file(t, "gpuvet.yaml", configHead)
	synctest.Test(t, func(t *testing.T) {
		r := startReloader(t, path, true, nil)
		time.Sleep(time.Minute + time.Second) // from here on between two looks
		if got := r.took(); got != nil {
			t.Fatalf("took %q of an unchanged file", got)
		}
		rewrite(t, path, configHead+"policy: {rows: [{reason: GPULost, ignore: true}]}\n") // half of it
		time.Sleep(configLook)
		if got := r.took(); got != nil {
			t.Errorf("took %q at the first look", got)
		}
		rewrite(t, path, configHead+"policy: {rows: [{reason: GPULost, ignore: true}, {xid: 31, ignore: true}]}\n")
		time.Sleep(2 * configLook)
		if got := r.took(); !slices.Equal(got, []string{"GPULost Xid 31"}) {
			t.Errorf("took %q", got)
		}
		// The same decisions in other words are no change.
		rewrite(t, path, configHead+"policy: {rows: [{xid: 31, ignore: true}, {reason: GPULost, ignore: true}]} # reordered\n")
		time.Sleep(2 * configLook)
		if got := r.took(); got != nil {
			t.Errorf("took %q again", got)
		}
		rewrite(t, path, "kind: nonsense\n")
		time.Sleep(2 * configLook)
		c := r.configuration()
		if got := r.took(); got != nil || c.Err == nil || !strings.Contains(c.Err.Error(), "nonsense") || c.Rows != 2 {
			t.Errorf("took %q, told %+v", got, c)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * configLook)
		if c := r.configuration(); c.Err == nil || !strings.Contains(c.Err.Error(), "no such file") {
			t.Errorf("file is gone: %+v", c)
		}
	})
}

func TestDefaultFileThatIsGoneBringsTheDefaultBack(t *testing.T) {
	path := file(t, "gpuvet.yaml", noExecute)
	synctest.Test(t, func(t *testing.T) {
		r := startReloader(t, path, false, nil)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2*configLook + time.Second)
		if got := r.took(); !slices.Equal(got, []string{""}) {
			t.Errorf("took %q", got)
		}
		if c := r.configuration(); c.Err != nil || c.Rows != 0 {
			t.Errorf("told %+v", c)
		}
	})
}

// Kubernetes changes a mounted ConfigMap by renaming a link to another folder.
func TestConfigMapIsTakenWhenItsFolderIsSwapped(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"..1": configHead, "..2": noExecute} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		rewrite(t, filepath.Join(dir, name, "gpuvet.yaml"), text)
	}
	link := func(target, name string) {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("..1", "..data")
	link("..data/gpuvet.yaml", "gpuvet.yaml")
	synctest.Test(t, func(t *testing.T) {
		r := startReloader(t, filepath.Join(dir, "gpuvet.yaml"), true, nil)
		link("..2", "..data_tmp")
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2*configLook + time.Second)
		if got := r.took(); !slices.Equal(got, []string{"GPULost"}) {
			t.Errorf("took %q", got)
		}
	})
}

func TestSectionsThatNeedARestartAreNamedUntilTheyAreAsBefore(t *testing.T) {
	path := file(t, "gpuvet.yaml", configHead)
	synctest.Test(t, func(t *testing.T) {
		signals := make(chan os.Signal)
		r := startReloader(t, path, true, signals)
		for _, step := range []struct {
			text string
			want []string
		}{
			{configHead + "trail: {retention: 1h}\nnode: {heartbeat: 1m}\n", []string{"node", "trail"}},
			{noExecute + "trail: {retention: 1h}\n", []string{"trail"}},
			{configHead, nil},
		} {
			rewrite(t, path, step.text)
			signals <- syscall.SIGHUP
			synctest.Wait()
			if diff := cmp.Diff(exporter.Configuration{Path: path, Restart: step.want, Rows: strings.Count(step.text, "reason")},
				without(r.configuration())); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}
	})
}

func without(c exporter.Configuration) exporter.Configuration {
	c.Loaded = time.Time{}
	return c
}
