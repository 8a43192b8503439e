package e2e

import (
	"flag"
	"os"
	"testing"

	"gpuvet.dev/internal/e2e/kube"
)

// cluster runs for as long as the tests do. It is set once, before the first.
var cluster *kube.Cluster

func TestMain(m *testing.M) {
	flag.Parse()
	atOnce := true
	flag.Visit(func(f *flag.Flag) { atOnce = atOnce && f.Name != "test.parallel" })
	if atOnce {
		// The tests wait more than they work.
		_ = flag.Set("test.parallel", "8")
	}
	os.Exit(kube.Main(m, func(c *kube.Cluster) { cluster = c }))
}
