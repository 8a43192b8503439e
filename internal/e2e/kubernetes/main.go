// Command kubernetes is etcd and every Kubernetes component in one binary. The
// name it is called by says which one runs. One binary is linked once and
// shares its pages, six would take six links of 3 GB each.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func main() {
	os.Exit(run(filepath.Base(os.Args[0]))) //nolint:forbidigo // this is a main
}

func run(name string) int {
	command := component(name)
	if command == nil {
		fmt.Fprintf(os.Stderr, "%s is no component: call this binary by the name of one\n", name)
		return 2
	}
	return cli.Run(command)
}

func component(name string) *cobra.Command {
	switch name {
	case "etcd":
		return etcd()
	case "kube-apiserver":
		return apiserver.NewAPIServerCommand()
	case "kube-scheduler":
		return scheduler.NewSchedulerCommand()
	case "kube-controller-manager":
		return controllers.NewControllerManagerCommand()
	case "kubelet":
		return kubelet.NewKubeletCommand(context.Background())
	case "kubectl":
		return kubectl.NewDefaultKubectlCommand()
	}
	return nil
}
