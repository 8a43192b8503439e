package dra

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"gpuvet.dev/detector"
	"gpuvet.dev/dra/pool"
)

// swept is a world in a bubble, without a disk and without a kubelet, with a claim
// that is prepared and one that is only intended.
func swept(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.t = t
		w.detector = quiet(w.gpus)
		w.plugin = w.newPlugin()
		c := claim("train", "pod", 0)
		if _, err := w.plugin.prepare(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		w.emit(detector.Event{Source: detector.SourceDRA, Kind: detector.KindClaimIntended, Claim: &detector.Claim{
			UID: "uid-half", Namespace: "team-a", Name: "half", Devices: []detector.ClaimDevice{{Name: device(1), Device: gpu(1)}},
		}})
		test(t, w)
	})
}

// sweeping sweeps until the function it returns is called.
func (w *world) sweeping() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.plugin.sweeps(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

func (w *world) claims() []string {
	var uids []string
	for _, c := range w.detector.Snapshot().Claims {
		uids = append(uids, c.UID)
	}
	return uids
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestClaimThatIsGoneIsGivenBackAfterAGrace(t *testing.T) {
	for name, c := range map[string]func(w *world){
		"deleted": func(*world) {},
		"another of the same name": func(w *world) {
			w.allocate("train", "pod", func(c *resourceapi.ResourceClaim) { c.UID = "another" }, 0)
			w.allocate("half", "pod", func(c *resourceapi.ResourceClaim) { c.UID = "another" }, 1)
		},
		"deallocated": func(w *world) {
			w.allocate("train", "pod", func(c *resourceapi.ResourceClaim) { c.Status.Allocation = nil }, 0)
			w.allocate("half", "pod", func(c *resourceapi.ResourceClaim) { c.Status.Allocation = nil }, 1)
		},
		"allocated elsewhere": func(w *world) {
			elsewhere := func(c *resourceapi.ResourceClaim) { c.Status.Allocation.Devices.Results[0].Pool = "node-2" }
			w.allocate("train", "pod", elsewhere, 0)
			w.allocate("half", "pod", elsewhere, 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			swept(t, func(t *testing.T, w *world) {
				t.Helper()
				c(w)
				defer w.sweeping()()
				pass(sweepGrace - time.Second)
				if n := len(w.claims()); n != 2 {
					t.Errorf("%d claims are left within the grace", n)
				}
				pass(2 * time.Second)
				if n := len(w.claims()); n != 0 {
					t.Errorf("%d claims are left after it", n)
				}
				if left, _ := filepath.Glob(w.path("cdi", "*")); len(left) != 0 {
					t.Errorf("left: %v", left)
				}
			})
		})
	}
}

func TestClaimThatExistsStays(t *testing.T) {
	swept(t, func(t *testing.T, w *world) {
		t.Helper()
		w.allocate("train", "pod", nil, 0)
		w.allocate("half", "pod", nil, 1)
		defer w.sweeping()()
		pass(time.Hour)
		if n := len(w.claims()); n != 2 {
			t.Errorf("%d claims are left", n)
		}
		reads := 0
		for _, a := range w.kube.Actions() {
			if a.GetVerb() == "get" {
				reads++
			}
		}
		if reads != 2*7 { // at the start, and then every 10 min
			t.Errorf("claims were read %d times within an hour", reads)
		}
	})
}

// The kubelet prepares a claim once, whoever joins later.
func TestPodsOfASharedClaimAreKept(t *testing.T) {
	swept(t, func(t *testing.T, w *world) {
		t.Helper()
		w.allocate("train", "pod", nil, 0)
		w.allocate("half", "pod", nil, 1)
		defer w.sweeping()()
		pass(time.Minute)
		before := w.ledger("uid-train")
		w.allocate("train", "another", nil, 0)
		pass(sweepEvery)
		now := w.ledger("uid-train")
		if want := (detector.ClaimPod{Name: "another", UID: "uid-another"}); len(now.Pods) != 1 || now.Pods[0] != want || !now.Prepared || !now.Since.Equal(before.Since) {
			t.Errorf("held as %+v, before as %+v", now, before)
		}
	})
}

func TestSilentAPIServerChangesNothing(t *testing.T) {
	swept(t, func(t *testing.T, w *world) {
		t.Helper()
		var answers atomic.Bool
		w.kube.PrependReactor("get", "resourceclaims", func(clienttesting.Action) (bool, runtime.Object, error) {
			return !answers.Load(), nil, errors.New("no route to host")
		})
		defer w.sweeping()()
		pass(time.Hour)
		if n := len(w.claims()); n != 2 {
			t.Errorf("%d claims are left", n)
		}
		answers.Store(true)
		pass(sweepEvery + sweepGrace)
		if n := len(w.claims()); n != 0 {
			t.Errorf("%d claims are left after it came back", n)
		}
	})
}

func TestClaimInTheWayIsLookedAtSoon(t *testing.T) {
	swept(t, func(t *testing.T, w *world) {
		t.Helper()
		w.allocate("train", "pod", nil, 0)
		w.allocate("half", "pod", nil, 1)
		defer w.sweeping()()
		pass(2 * time.Minute)
		if err := w.kube.ResourceV1().ResourceClaims("team-a").Delete(t.Context(), "train", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		next := claim("next", "other", 0)
		if _, err := w.plugin.prepare(t.Context(), next); KindOf(err) != KindHeld {
			t.Fatalf("next: %v", err)
		}
		pass(sweepGrace + time.Second)
		if _, err := w.plugin.prepare(t.Context(), next); err != nil {
			t.Errorf("a minute later: %v", err)
		}
	})
}

// checkpoint has the kubelet know claims, by UID.
func (w *world) checkpoint(uids ...string) {
	w.t.Helper()
	content := `{"Data":"{\"kind\":\"DRACheckpoint\",\"ClaimInfoStateList\":[`
	for _, uid := range uids {
		content += `{\"ClaimUID\":\"` + uid + `\",\"PodUIDs\":{}},`
	}
	if err := os.WriteFile(w.path("dra_manager_state"), []byte(content+`]}","Checksum":1}`), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// The pod was deleted by force, and its containers hang in the driver.
func TestClaimThatTheKubeletKnowsIsLeftToIt(t *testing.T) {
	swept(t, func(t *testing.T, w *world) {
		t.Helper()
		w.checkpoint("uid-train")
		defer w.sweeping()()
		pass(time.Hour)
		if got := w.claims(); !slices.Equal(got, []string{"uid-train"}) {
			t.Errorf("held are %v", got)
		}
		if _, err := w.plugin.prepare(t.Context(), claim("next", "other", 0)); KindOf(err) != KindHeld {
			t.Errorf("next: %v, while containers still have the device", err)
		}
		w.checkpoint()
		pass(sweepGrace + time.Second)
		if got := w.claims(); len(got) != 0 {
			t.Errorf("the kubelet forgot it, and held are %v", got)
		}
	})
}

func TestClaimThatIsPreparedAgainIsNotSwept(t *testing.T) {
	swept(t, func(t *testing.T, w *world) {
		t.Helper()
		stop := w.sweeping()
		pass(sweepGrace / 2)
		stop()
		seen := w.ledger("uid-train")
		c := claim("train", "next", 0)
		if _, err := w.plugin.prepare(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		w.plugin.giveBack(t.Context(), seen)
		if now := w.ledger("uid-train"); now == nil || now.Pods[0].Name != "next" {
			t.Errorf("held as %+v", now)
		}
	})
}

func (w *world) ledger(uid string) *detector.Claim {
	c, _ := w.detector.Snapshot().Claim(uid)
	return c
}

func TestStraysAreRemovedAtTheStart(t *testing.T) {
	t.Parallel()
	w, _ := atWork(t)
	c := w.allocate("train", "pod", nil, 0)
	w.prepare(c)
	w.end()
	metadata := w.path("plugins", pool.DriverName, "dra-device-metadata")
	strays := []string{
		w.path("cdi", "gpu.gpuvet.dev-claim_uid-gone.json"), w.path("cdi", "gpu.gpuvet.dev-claim_uid-torn.json.new"),
		w.path("cdi", pool.DriverName+"_metadata_uid-gone_gpu.json"), filepath.Join(metadata, "team-b_gone"),
	}
	kept := []string{
		w.path("cdi", "gpu.gpuvet.dev-claim_uid-train.json"), w.path("cdi", pool.DriverName+"_metadata_uid-train_gpu-0.json"),
		filepath.Join(metadata, "team-a_train", "gpu-0", "metadata.json"), w.path("cdi", "nvidia.yaml"),
	}
	for _, path := range append(strays, w.path("cdi", "nvidia.yaml")) {
		if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.start()
	w.kubelet(nil)
	for _, path := range strays {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s stays: %v", path, err)
		}
	}
	for _, path := range kept {
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	}
}

func TestLostStateTakesNothingFromContainers(t *testing.T) {
	t.Parallel()
	w, _ := atWork(t)
	c := w.allocate("train", "pod", nil, 0)
	w.prepare(c)
	w.end()
	w.checkpoint(c.UID)
	if err := os.RemoveAll(w.path("state")); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.kubelet(nil)
	files := []string{
		w.path("cdi", "gpu.gpuvet.dev-claim_uid-train.json"), w.path("cdi", pool.DriverName+"_metadata_uid-train_gpu-0.json"),
		w.path("plugins", pool.DriverName, "dra-device-metadata", "team-a_train", "gpu-0", "metadata.json"),
	}
	w.plugin.removeStrays(t.Context())
	for _, path := range files {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("a container that is started again would fail: %v", err)
		}
	}
	w.unprepare(c)
	for _, path := range files {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("given back, and %s stays: %v", path, err)
		}
	}
}
