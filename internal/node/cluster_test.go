package node

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

func TestConnectOutsideAClusterSaysSo(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := Connect("", "1"); !errors.Is(err, ErrNoCluster) {
		t.Errorf("Connect = %v, want ErrNoCluster", err)
	}
	missing := filepath.Join(t.TempDir(), "none")
	if _, err := Connect(missing, "1"); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("Connect = %v, want an error that names the file", err)
	}
}

func TestConnectedClientSaysWhoItIsAndCanDropItsConnections(t *testing.T) {
	remotes := map[string]bool{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		remotes[r.RemoteAddr] = true
		if got := r.UserAgent(); got != "gpuvet/1.2" {
			t.Errorf("user agent is %q", got)
		}
		if got := r.Header.Get("Accept"); !strings.HasPrefix(got, "application/vnd.kubernetes.protobuf,") {
			t.Errorf("accepts %q, want protobuf first", got)
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	defer server.Close()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	content := "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c}}]\nclusters: [{name: c, cluster: {server: \"" + server.URL + "\"}}]\n"
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	cluster, err := Connect(path, "1.2")
	if err != nil {
		t.Fatal(err)
	}
	client, err := corev1client.NewForConfig(cluster.Config)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for range 2 {
			if _, err := client.Nodes().Get(t.Context(), nodeName, metav1.GetOptions{}); err == nil {
				t.Error("the test's server has no node")
			}
		}
		cluster.Reconnect()
	}
	if len(remotes) != 2 {
		t.Errorf("%d connections, want one before and one after", len(remotes))
	}
}
