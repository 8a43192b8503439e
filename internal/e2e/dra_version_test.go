package e2e

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"

	"gpuvet.dev/internal/e2e/daemon"
	"gpuvet.dev/internal/e2e/kube"
)

// The daemon against older API servers: those that keep no device taints have the
// attribute healthy, by which the classes select, and the taint of the node.
func TestDRAByVersion(t *testing.T) { //nolint:tparallel // three API servers more at once are too many
	t.Parallel()
	for version, want := range map[string]string{"1.34": "attribute", "1.35": "attribute", "1.36": "taints"} {
		t.Run(version, func(t *testing.T) {
			c := cluster.Emulated(t, version)
			const node = "dra-version"
			c.AddNode(t, node)
			fleet := daemon.NewFleet(4)
			d := daemon.Start(t, c, daemon.Options{
				Node: node, Scenario: fleet.Scenario(t), Config: daemon.Config{DRA: "{enabled: auto}"},
			})
			d.AwaitReady(t)
			sick := func() resourceapi.Device { return published(t, c, node)[fleet[3].Device()] }
			kube.Eventually(t, soon, func() error {
				if n := len(published(t, c, node)); n != 4 {
					return fmt.Errorf("%d devices are published, want 4", n)
				}
				return nil
			})

			daemon.KernelLog(t, fleet[3].Xid(79, fallen))
			kube.Eventually(t, soon, func() error {
				if healthy := sick().Attributes["healthy"].BoolValue; healthy == nil || *healthy {
					return errors.New("the lost GPU is published as healthy")
				}
				in, err := d.Value(t.Context(), "gpuvet_dra_mode", "mode", want)
				if err == nil && in != 1 {
					err = fmt.Errorf("the mode is not %s", want)
				}
				return err
			})
			wantDevice, wantNode := "", 1
			if want == "taints" {
				wantDevice, wantNode = lostTaint, 0
			}
			kube.Eventually(t, soon, func() error {
				is := c.Node(t, node)
				if got := taintsOf(sick()); got != wantDevice || len(ownTaints(is)) != wantNode {
					return fmt.Errorf("taints of the device are %q, want %q; those of the node %v, want %d", got, wantDevice, is.Spec.Taints, wantNode)
				}
				if condition := kube.Condition(is, ownCondition); condition == nil || condition.Status != corev1.ConditionFalse {
					return fmt.Errorf("condition is %+v, want False", condition)
				}
				return nil
			})

			c.CreateClaimTemplate(t, "version", kube.Devices(gpuClass, 1))
			var got []string
			for i := range 3 {
				name := fmt.Sprintf("version-%d", i)
				c.CreatePod(t, kube.Pod{
					Name: name, Node: node, ClaimTemplate: "version",
					Tolerations: []corev1.Toleration{{Key: ownTaint, Operator: corev1.TolerationOpExists}},
				})
				got = append(got, kube.Allocated(c.AwaitAllocated(t, name))...)
			}
			slices.Sort(got)
			if well := []string{fleet[0].Device(), fleet[1].Device(), fleet[2].Device()}; !slices.Equal(got, well) {
				t.Errorf("pods that tolerate the node's taint have %v, want %v", got, well)
			}

			if out, code := d.Command(t, "clear", fleet[3].PCI); code != 0 {
				t.Fatalf("gpuvet clear ends with %d:\n%s", code, out)
			}
			kube.Eventually(t, soon, func() error {
				if healthy := sick().Attributes["healthy"].BoolValue; healthy == nil || !*healthy || taintsOf(sick()) != "" {
					return fmt.Errorf("the GPU is well, and published as %v with taints %q", sick().Attributes["healthy"], taintsOf(sick()))
				}
				if taints := ownTaints(c.Node(t, node)); len(taints) > 0 {
					return fmt.Errorf("taints of the node are %v, want none of ours", taints)
				}
				return nil
			})
		})
	}
}
