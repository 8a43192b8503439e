package kube

import (
	"context"
	"fmt"
	"os"
	"os/exec"
)

// Kubectl runs kubectl as the administrator and returns what it printed, to
// either place. Its error wraps an [exec.ExitError].
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	kubectl := exec.CommandContext(ctx, c.plan.Parts.Bin("kubectl"), append([]string{"--kubeconfig", c.path("kubeconfig/admin")}, args...)...)
	kubectl.Env = append(os.Environ(), "HOME="+c.dir) // for its discovery cache
	out, err := kubectl.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w\n%s", args[0], err, out)
	}
	return string(out), err
}
