package kube

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	api "k8s.io/client-go/tools/clientcmd/api"
)

// Server is the address of the API server. Pods are told that of the cluster with
// the kubelet.
func (c *Cluster) Server() string { return "https://" + serviceAddress + ":" + c.plane.port }

// ServiceAccount names an account.
type ServiceAccount struct{ Namespace, Name string }

// Shipped is the account that the daemon runs as.
var Shipped = ServiceAccount{Namespace: "gpuvet", Name: "gpuvet"}

// Kubeconfig writes a kubeconfig for any user of any groups and returns its
// path.
func (c *Cluster) Kubeconfig(user string, groups ...string) (string, error) {
	certificate, key, err := c.authority.client(user, groups...)
	if err != nil {
		return "", err
	}
	return c.writeKubeconfig(user, &api.AuthInfo{ClientCertificateData: certificate, ClientKeyData: key})
}

// TokenKubeconfig writes a kubeconfig with a token of the account, bound to the
// node as the kubelet binds those of pods, and returns its path. Without a node
// the token is bound to nothing.
func (c *Cluster) TokenKubeconfig(ctx context.Context, account ServiceAccount, node string) (string, error) {
	token, err := c.Token(ctx, account, node)
	if err != nil {
		return "", err
	}
	return c.writeKubeconfig(account.Name+"@"+node, &api.AuthInfo{Token: token})
}

// Token asks for a token of the account, bound to the node if there is one.
func (c *Cluster) Token(ctx context.Context, account ServiceAccount, node string) (string, error) {
	request := &authenticationv1.TokenRequest{}
	if node != "" {
		bound, err := c.admin.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
		if err != nil {
			return "", fmt.Errorf("bind token: %w", err)
		}
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{
			APIVersion: "v1", Kind: "Node", Name: bound.Name, UID: bound.UID,
		}
	}
	answer, err := c.admin.CoreV1().ServiceAccounts(account.Namespace).
		CreateToken(ctx, account.Name, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("ask for token: %w", err)
	}
	return answer.Status.Token, nil
}

// As is a client of the account with a token bound to the node, or to nothing
// if node is empty.
func (c *Cluster) As(ctx context.Context, account ServiceAccount, node string) (kubernetes.Interface, error) {
	path, err := c.TokenKubeconfig(ctx, account, node)
	if err != nil {
		return nil, err
	}
	restConfig, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	return connect(restConfig)
}

func (c *Cluster) writeKubeconfig(name string, user *api.AuthInfo) (string, error) {
	kubeconfig := api.NewConfig()
	kubeconfig.Clusters["e2e"] = &api.Cluster{Server: c.Server(), CertificateAuthorityData: c.authority.pem()}
	kubeconfig.AuthInfos["e2e"] = user
	kubeconfig.Contexts["e2e"] = &api.Context{Cluster: "e2e", AuthInfo: "e2e"}
	kubeconfig.CurrentContext = "e2e"
	path := c.path("kubeconfig/" + strings.NewReplacer(":", "-", "/", "-").Replace(name))
	if err := clientcmd.WriteToFile(*kubeconfig, path); err != nil {
		return "", fmt.Errorf("write kubeconfig of %s: %w", name, err)
	}
	return path, nil
}

// applyShipped applies the shipped rights and DeviceClasses, unchanged and with the
// tool that an operator would use.
func (c *Cluster) applyShipped(ctx context.Context) error {
	_, err := c.Kubectl(ctx, "apply", "--server-side", "--validate=strict",
		"-f", filepath.Join(c.shipped, "rbac"), "-f", filepath.Join(c.shipped, "dra"))
	if err != nil {
		return fmt.Errorf("apply what ships: %w", err)
	}
	return nil
}

// awaitRights waits until every policy refuses: the API server starts to enforce
// one a while after it has accepted it. The node has to be there.
func (c *Cluster) awaitRights(ctx context.Context, node string) error {
	user := fmt.Sprintf("system:serviceaccount:%s:%s", Shipped.Namespace, Shipped.Name)
	impersonator, err := clientcmd.BuildConfigFromFlags("", c.path("kubeconfig/admin"))
	if err != nil {
		return fmt.Errorf("read kubeconfig of admin: %w", err)
	}
	impersonator.Impersonate = rest.ImpersonationConfig{UserName: user}
	client, err := connect(impersonator)
	if err != nil {
		return err
	}
	dryRun := []string{metav1.DryRunAll}
	event := &corev1.Event{ObjectMeta: metav1.ObjectMeta{GenerateName: "rights-", Namespace: "default"}}
	slice := &resourceapi.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "rights-"},
		Spec: resourceapi.ResourceSliceSpec{
			Driver: "example.com", AllNodes: new(true), Pool: resourceapi.ResourcePool{Name: "rights", ResourceSliceCount: 1},
		},
	}
	for _, attempt := range []func() error{
		func() error {
			_, err := client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, []byte(`{}`), metav1.PatchOptions{DryRun: dryRun})
			return err
		},
		func() error {
			_, err := client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, []byte(`{}`), metav1.PatchOptions{DryRun: dryRun}, "status")
			return err
		},
		func() error {
			_, err := client.CoreV1().Events("default").Create(ctx, event, metav1.CreateOptions{DryRun: dryRun})
			return err
		},
		func() error {
			_, err := client.ResourceV1().ResourceSlices().Create(ctx, slice, metav1.CreateOptions{DryRun: dryRun})
			return err
		},
	} {
		err := c.await(ctx, "policies in force", func() error {
			err := attempt()
			switch {
			case err == nil:
				return errors.New("a write without a node was not refused")
			case !strings.Contains(err.Error(), "ValidatingAdmissionPolicy"):
				return fmt.Errorf("a write without a node was not refused by a policy: %w", err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
