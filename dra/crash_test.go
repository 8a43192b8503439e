package dra

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"gpuvet.dev/detector"
	"gpuvet.dev/dra/kubelettest"
	"gpuvet.dev/dra/pool"
	"gpuvet.dev/internal/state"
)

// node is a folder in which a driver of its own process lives and dies.
type node struct {
	t       *testing.T
	dir     string
	binary  string
	server  string
	kubelet *kubelettest.Kubelet
	plugin  *kubelettest.Plugin
}

// life is one run of the driver; it dies at a fault point, or is stopped.
func (n *node) life(boot, point string) (end func(killed bool)) {
	n.t.Helper()
	cmd := exec.Command(n.binary, n.dir, n.server, nodeName, boot, point)
	var out strings.Builder
	cmd.Stderr = &out
	ready, err := cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	if _, err := bufio.NewReader(ready).ReadString('\n'); err != nil {
		n.t.Errorf("driver did not start: %v\n%s", err, &out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if n.plugin != nil {
		if err := n.kubelet.Gone(ctx, n.plugin); err != nil {
			n.t.Fatal(err)
		}
	}
	if n.plugin, err = n.kubelet.Plugin(ctx, pool.DriverName); err != nil {
		n.t.Fatalf("%v\n%s", err, &out)
	}
	return func(killed bool) {
		n.t.Helper()
		if !killed {
			_ = cmd.Process.Signal(syscall.SIGTERM)
		}
		err := cmd.Wait()
		var exit *exec.ExitError
		died := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		if died != killed || err != nil && !died {
			n.t.Fatalf("driver ended with %v; killed: want %v\n%s", err, killed, &out)
		}
	}
}

// ledger is what stands on disk.
func (n *node) ledger() []*detector.Claim {
	n.t.Helper()
	dir, err := state.Open(filepath.Join(n.dir, "state"))
	if err != nil {
		n.t.Fatal(err)
	}
	defer dir.Close()
	payload, _, err := dir.Load()
	if err != nil {
		n.t.Fatal(err)
	}
	saved, err := detector.DecodeSaved(payload)
	if err != nil {
		n.t.Fatal(err)
	}
	return saved.State.Claims
}

func (n *node) specs() []string {
	n.t.Helper()
	left, err := filepath.Glob(filepath.Join(n.dir, "cdi", "*"))
	if err != nil {
		n.t.Fatal(err)
	}
	return left
}

// claimsOf answers for claims as an API server does.
func claimsOf(claims ...*resourceapi.ResourceClaim) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for _, c := range claims {
			if r.URL.Path == "/apis/resource.k8s.io/v1/namespaces/"+c.Namespace+"/resourceclaims/"+c.Name {
				_ = json.NewEncoder(w).Encode(c)
				return
			}
		}
		w.WriteHeader(http.StatusNotFound)
		_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Reason: metav1.StatusReasonNotFound, Code: http.StatusNotFound})
	})
}

// A driver that dies at any step is called again by the kubelet: with the same call,
// with the one that follows, or, after a boot, with the first one.
func TestKilledDriverEndsWhereItWouldHave(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "driver")
	build := exec.Command("go", "build", "-tags", "faultpoints", "-o", binary, "./testdata/driver")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, out)
	}
	train := claim("train", "pod", 0)
	train.APIVersion, train.Kind = "resource.k8s.io/v1", "ResourceClaim"
	c := kubelettest.Claim{Namespace: train.Namespace, Name: train.Name, UID: string(train.UID)}
	for _, step := range []struct{ during, point string }{
		{"prepare", "folded"},
		{"prepare", "state-written"},
		{"prepare", "state-renamed"},
		{"prepare", "dra-intended"},
		{"prepare", "cdi-written"},
		{"prepare", "dra-written"},
		{"prepare", "state-written:2"},
		{"prepare", "dra-prepared"},
		{"unprepare", "dra-removed"},
		{"unprepare", "state-renamed"},
		{"unprepare", "dra-released"},
	} {
		for _, then := range []string{"the same call", "unprepare", "boot"} {
			if step.during == "unprepare" && then == "unprepare" {
				continue
			}
			t.Run(step.during+" "+step.point+", then "+then, func(t *testing.T) {
				t.Parallel()
				server := httptest.NewServer(claimsOf(train))
				defer server.Close()
				dir := folder(t)
				k, err := kubelettest.Start(dir, kubelettest.Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer k.Stop()
				n := &node{t: t, dir: dir, binary: binary, server: server.URL, kubelet: k}

				if step.during == "unprepare" {
					end := n.life("boot-1", "")
					if _, err := n.plugin.Prepare(t.Context(), c); err != nil {
						t.Fatal(err)
					}
					end(false)
				}
				end := n.life("boot-1", step.point)
				if step.during == "prepare" {
					_, err = n.plugin.Prepare(t.Context(), c)
				} else {
					err = n.plugin.Unprepare(t.Context(), c)
				}
				if err == nil {
					t.Error("the call went well")
				}
				end(true)

				boot := "boot-1"
				if then == "boot" {
					boot = "boot-2"
					if err := os.RemoveAll(filepath.Join(dir, "cdi")); err != nil {
						t.Fatal(err)
					}
				}
				end = n.life(boot, "")
				if step.during == "prepare" && then != "unprepare" {
					got, err := n.plugin.Prepare(t.Context(), c)
					if err != nil || len(got[c.UID]) != 1 || len(got[c.UID][0].CDI) != 2 {
						t.Errorf("prepared again: %v, %v", got, err)
					}
					if held := n.specs(); len(held) != 2 { // the claim's and its metadata
						t.Errorf("specs %v", held)
					}
					end(false)
					if held := n.ledger(); len(held) != 1 || !held[0].Prepared || held[0].Boot != boot {
						t.Errorf("held: %+v", held)
					}
					end = n.life(boot, "")
				}
				if err := n.plugin.Unprepare(t.Context(), c); err != nil {
					t.Errorf("given back: %v", err)
				}
				end(false)
				if held := n.ledger(); len(held) != 0 {
					t.Errorf("held in the end: %+v", held)
				}
				if left := n.specs(); len(left) != 0 {
					t.Errorf("specs in the end: %v", left)
				}
			})
		}
	}
}
