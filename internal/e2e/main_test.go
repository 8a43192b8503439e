package e2e

import (
	"os"
	"testing"

	"gpuvet.dev/internal/e2e/kube"
)

// cluster runs for as long as the tests do. It is set once, before the first.
var cluster *kube.Cluster

func TestMain(m *testing.M) {
	os.Exit(kube.Main(m, func(c *kube.Cluster) { cluster = c }))
}
