package kube

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// emulated counts the control planes beside the first one.
var emulated atomic.Int64

// Emulated starts a further API server, controller manager and scheduler, which behave
// as those of an older version such as "1.34", with its feature gates as they were by
// default and as the gates say, such as "DRADeviceTaints=true". It is a cluster with the
// shipped rights and DeviceClasses and without a node: nodes come from [Cluster.AddNode], and no pod on
// them ever runs. It goes with the test.
func (c *Cluster) Emulated(t testing.TB, version string, gates ...string) *Cluster {
	t.Helper()
	n := emulated.Add(1)
	name := fmt.Sprintf("%s-%d", version, n)
	e := &Cluster{
		plan: c.plan, dir: filepath.Join(c.dir, "emulated", name), shipped: c.shipped, startedAt: time.Now(),
		plane: controlPlane{
			port: strconv.FormatInt(6443+n, 10), prefix: "/" + name,
			versions: []string{"--emulated-version=" + version},
		},
	}
	if len(gates) > 0 {
		e.plane.versions = append(e.plane.versions, "--feature-gates="+strings.Join(gates, ","))
	}
	t.Cleanup(func() {
		e.stop()
		if t.Failed() {
			e.printTails(os.Stderr)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, step := range []func(context.Context) error{
		func(context.Context) error { return e.prepareControlPlane() },
		e.startAPIServer,
		e.startControllers,
		e.applyShipped,
		e.awaitControllers,
	} {
		if err := step(ctx); err != nil {
			t.Fatalf("start Kubernetes as %s: %v", version, err)
		}
	}
	const probe = "rights-probe"
	e.AddNode(t, probe)
	if err := e.awaitRights(ctx, probe); err != nil {
		t.Fatalf("start Kubernetes as %s: %v", version, err)
	}
	t.Logf("Kubernetes as %s %s is there after %.1f s", version, strings.Join(gates, " "), time.Since(e.startedAt).Seconds())
	return e
}
