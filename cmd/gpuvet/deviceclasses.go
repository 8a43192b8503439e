package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	resourceclient "k8s.io/client-go/kubernetes/typed/resource/v1"
	"k8s.io/client-go/tools/clientcmd"

	"gpuvet.dev/deploy/dra"
)

// gpuClass is the DeviceClass that may answer for an extended resource.
const gpuClass = "gpu.gpuvet.dev"

// classesLimit is how long the API server has to list the DeviceClasses.
const classesLimit = 10 * time.Second

func deviceClassesCommand() *cobra.Command {
	var extended, kubeconfig string
	cmd := &cobra.Command{
		Use:   "deviceclasses",
		Short: "Print the DeviceClasses, one of them for an extended resource",
		Long: `Print the DeviceClasses of deploy/dra/classes.yaml, to be applied.

With --extended-resource-name, a pod that asks for so many of that resource gets as
many GPUs, as if it had a claim to gpu.gpuvet.dev (Kubernetes 1.36 and later). The
cluster is asked first. If another DeviceClass has the name already, nothing is
printed: the scheduler would take the newer class, for every such pod of the cluster.
Nor is anything printed if there is no cluster to ask.

Pods may ask for deviceclass.resource.kubernetes.io/gpu.gpuvet.dev without any of that.`,
		Example: `  gpuvet deviceclasses | kubectl apply -f -
  gpuvet deviceclasses --extended-resource-name nvidia.com/gpu | kubectl apply -f -`,
		Args: arguments(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			classes, extends := dra.Classes, cmd.Flags().Changed("extended-resource-name")
			if kubeconfig != "" && !extends {
				return badInput("--kubeconfig %s: expected --extended-resource-name with it", kubeconfig)
			}
			if extends {
				if err := extendedResource(extended); err != nil {
					return err
				}
				if err := unclaimed(cmd.Context(), kubeconfig, extended); err != nil {
					return err
				}
				var err error
				if classes, err = named(classes, extended); err != nil {
					return err
				}
			}
			_, err := cmd.OutOrStdout().Write(classes)
			return err
		},
	}
	cmd.Flags().StringVar(&extended, "extended-resource-name", "", "resource that pods ask for in place of a claim, such as nvidia.com/gpu")
	cmd.Flags().StringVar(&kubeconfig, "kubeconfig", "", "kubeconfig file of the cluster to ask; without it that of kubectl")
	return cmd
}

// extendedResource reports what is wrong with a name as that of an extended resource.
func extendedResource(name string) error {
	faults := validation.IsQualifiedName(name)
	domain, _, _ := strings.Cut(name, "/")
	if len(faults) > 0 || domain == name || strings.HasSuffix(domain, "kubernetes.io") || strings.HasPrefix(name, "requests.") {
		return badInput("--extended-resource-name %q: expected DOMAIN/NAME such as nvidia.com/gpu, not of kubernetes.io, and not beginning with requests.", name)
	}
	return nil
}

// unclaimed asks the cluster whether another class has the name. An error is that one
// has, or that it cannot be known.
func unclaimed(ctx context.Context, kubeconfig, name string) error {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	switch {
	case clientcmd.IsEmptyConfig(err):
		return badInput("whether another DeviceClass has the name %s cannot be known without a cluster to ask: expected --kubeconfig", name)
	case err != nil:
		return badInput("--kubeconfig: %w", err)
	}
	client, err := resourceclient.NewForConfig(config)
	if err != nil {
		return badInput("--kubeconfig: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, classesLimit)
	defer cancel()
	there, err := client.DeviceClasses().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("whether another DeviceClass has the name %s cannot be known: list DeviceClasses: %w", name, err)
	}
	return otherClass(there.Items, name)
}

// otherClass is an error if a class other than ours has the name.
func otherClass(classes []resourceapi.DeviceClass, name string) error {
	for i := range classes {
		c := &classes[i]
		if c.Name != gpuClass && c.Spec.ExtendedResourceName != nil && *c.Spec.ExtendedResourceName == name {
			return fmt.Errorf("DeviceClass %s has the extended resource name %s already: the scheduler would take the newer class, and every such pod of the cluster with it; take the name from %s first", c.Name, name, c.Name)
		}
	}
	return nil
}

// named is the classes with the name in ours.
func named(classes []byte, name string) ([]byte, error) {
	head, ours, found := bytes.Cut(classes, []byte("\n  name: "+gpuClass+"\n"))
	labels, spec, foundSpec := bytes.Cut(ours, []byte("\nspec:\n"))
	if !found || !foundSpec {
		return nil, fmt.Errorf("name the extended resource: no DeviceClass %s is shipped", gpuClass)
	}
	return fmt.Appendf(nil, "%s\n  name: %s\n%s\nspec:\n  extendedResourceName: %s\n%s", head, gpuClass, labels, name, spec), nil
}
