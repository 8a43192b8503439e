package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gpuvet.dev/detector"
)

func TestReloadTakesTheParametersOfThePolicy(t *testing.T) {
	const (
		taken = configHead + "policy: {repeatOffender: {incidents: 1, within: 1440h}}\n"
		wrong = configHead + "policy: {repeatOffender: {incidents: 1, within: 1m}}\n"
		why   = "incident 1 within 60 days, stays until it is cleared by hand"
	)
	dir, path := t.TempDir(), file(t, "gpuvet.yaml", configHead)
	d := startScenario(t, dir, losing, "--config", path)
	kept := func(d *running) bool {
		return slices.ContainsFunc(d.gpu(1).Conditions, func(c detector.Condition) bool { return c.Sticky && c.Why == why })
	}
	d.ready()
	d.untilEffect(1, detector.NoSchedule)
	if kept(d) {
		t.Error("kept for its first incident")
	}
	rewrite(t, path, taken)
	hangUp(t)
	d.eventually("the GPU is kept", func() bool { return kept(d) })
	rewrite(t, path, wrong)
	hangUp(t)
	d.eventually("the bad file is told", func() bool { return d.metric("gpuvet_config_reload_success") == "0" })
	if !kept(d) {
		t.Error("not kept any more under a file that is not taken")
	}
	d.end()

	again := startScenario(t, dir, driverless, "--config", file(t, "again.yaml", taken))
	again.ready()
	if !kept(again) {
		t.Errorf("not kept after a restart: %+v", again.gpu(1).Conditions)
	}
	again.end()
	if told := output(t, "", "replay", filepath.Join(dir, "trail")); strings.Count(told, why) != 1 {
		t.Errorf("replayed:\n%s", told)
	}
}
