package dra

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"gpuvet.dev/detector"
	"gpuvet.dev/dra/kubelettest"
)

func TestLostStateGivesNobodyTheDevicesOfContainers(t *testing.T) {
	t.Parallel()
	w, kubelet := atWork(t)
	c, other := w.allocate("train", "pod", nil, 0), w.allocate("next", "other", nil, 0)
	before, err := kubelet.Prepare(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	was := w.held(c)
	for _, life := range []string{"the one that finds it", "the one after"} {
		w.end()
		w.checkpoint(c.UID)
		if life == "the one that finds it" {
			if err := os.RemoveAll(w.path("state")); err != nil {
				t.Fatal(err)
			}
		}
		w.start()
		kubelet = w.kubelet(nil)
		held := w.held(c)
		if held == nil || !held.Prepared || held.Name != was.Name || !slices.Equal(held.Pods, was.Pods) || !slices.EqualFunc(held.Devices, was.Devices, sameDevice) {
			t.Fatalf("%s holds it as %+v, before it was %+v", life, held, was)
		}
		if _, err := kubelet.Prepare(t.Context(), other); err == nil || !strings.Contains(err.Error(), "is held by claim team-a/train") {
			t.Errorf("%s gives the device to another claim: %v", life, err)
		}
	}
	again, err := kubelet.Prepare(t.Context(), c)
	if err != nil || !slices.Equal(again[c.UID][0].CDI, before[c.UID][0].CDI) {
		t.Errorf("prepared again as %v, %v; before as %v", again, err, before)
	}
	w.unprepare(c)
	if _, err := kubelet.Prepare(t.Context(), other); err != nil {
		t.Errorf("given back, and the device is not free: %v", err)
	}
}

// forget is a daemon that has lost its state, and what it says at its start.
func (w *world) forget() *observer.ObservedLogs {
	w.t.Helper()
	w.detector = quiet(w.gpus)
	w.plugin = w.newPlugin()
	log, lines := observer.New(zap.InfoLevel)
	w.plugin.o.Log = zap.New(log)
	w.plugin.restore(w.t.Context())
	return lines
}

func TestClaimIsAdoptedOnlyIfAllIsKnownOfIt(t *testing.T) {
	for name, c := range map[string]struct {
		spec    func(string) string // what the spec says instead
		unknown bool                // to the kubelet
		left    bool                // the file
		says    string
	}{
		"as it is":                    {left: true, says: "it is held again"},
		"the kubelet forgot it":       {unknown: true},
		"an older version":            {left: true, spec: func(s string) string { return strings.Replace(s, "gpu.gpuvet.dev/note", "example.com/note", 1) }, says: "an older version wrote it"},
		"torn":                        {left: true, spec: func(s string) string { return s[:len(s)/2] }, says: "read CDI spec of claim uid-train"},
		"empty":                       {left: true, spec: func(string) string { return "" }, says: "read CDI spec of claim uid-train"},
		"a note that is none":         {left: true, spec: func(s string) string { return strings.Replace(s, `"{\"uid`, `"[{\"uid`, 1) }, says: "decode what it says"},
		"another kind of note":        {left: true, spec: func(s string) string { return strings.Replace(s, `\"devices\":[`, `\"devices\":[null,`, 1) }, says: "or not all"},
		"without devices":             {left: true, spec: func(s string) string { return strings.Replace(s, `\"devices\":`, `\"things\":`, 1) }, says: "or not all"},
		"a device without an address": {left: true, spec: func(s string) string { return strings.Replace(s, `\"pci\":`, `\"bus\":`, 1) }, says: "or not all"},
		"another claim":               {left: true, spec: func(s string) string { return strings.Replace(s, `\"uid\":\"uid-train`, `\"uid\":\"uid-next`, 1) }, says: "is of another"},
		"another boot":                {left: true, spec: func(s string) string { return strings.Replace(s, "boot-1", "boot-0", 1) }},
	} {
		t.Run(name, func(t *testing.T) {
			swept(t, func(t *testing.T, w *world) {
				t.Helper()
				file := w.path("cdi", "gpu.gpuvet.dev-claim_uid-train.json")
				content, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if c.spec != nil {
					changed := c.spec(string(content))
					if changed == string(content) {
						t.Fatalf("nothing is changed in %s", content)
					}
					if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				if !c.unknown {
					w.checkpoint("uid-train")
				}
				lines := w.forget()
				held, is := w.ledger("uid-train"), c.spec == nil && !c.unknown
				if is != (held != nil && held.Prepared) {
					t.Errorf("held as %+v, want it held: %t", held, is)
				}
				if left := w.spec(kubelettest.Claim{UID: "uid-train"}); left != c.left {
					t.Errorf("its spec is there: %t, want %t", left, c.left)
				}
				var said []string
				for _, l := range lines.All() {
					err, _ := l.ContextMap()["error"].(string)
					said = append(said, l.Message+": "+err)
				}
				if all := strings.Join(said, "\n"); len(said) > 1 || (c.says == "") != (all == "") || !strings.Contains(all, c.says) {
					t.Errorf("said was %q, want one line with %q", said, c.says)
				}
			})
		})
	}
}

func TestOfTwoClaimsWithOneDeviceTheFirstIsAdopted(t *testing.T) {
	swept(t, func(t *testing.T, w *world) {
		t.Helper()
		content, err := os.ReadFile(w.path("cdi", "gpu.gpuvet.dev-claim_uid-train.json"))
		if err != nil {
			t.Fatal(err)
		}
		second := strings.ReplaceAll(string(content), "train", "zebra")
		if err := os.WriteFile(w.path("cdi", "gpu.gpuvet.dev-claim_uid-zebra.json"), []byte(second), 0o600); err != nil {
			t.Fatal(err)
		}
		w.checkpoint("uid-train", "uid-zebra")
		lines := w.forget()
		if got := w.claims(); !slices.Equal(got, []string{"uid-train"}) {
			t.Errorf("held are %v", got)
		}
		refused := lines.FilterMessageSnippet("cannot be held again").All()
		if len(refused) != 1 || refused[0].ContextMap()["error"] != "device "+device(0)+" is held by claim team-a/train (uid-train)" {
			t.Errorf("said was %v", lines.All())
		}
	})
}

// A daemon that died between the two steps has left an intent.
func TestClaimThatIsHeldIsNotAdopted(t *testing.T) {
	swept(t, func(t *testing.T, w *world) {
		t.Helper()
		w.checkpoint("uid-train")
		held := *w.ledger("uid-train")
		w.detector = quiet(w.gpus)
		w.emit(detector.Event{Source: detector.SourceDRA, Kind: detector.KindClaimIntended, Claim: &held})
		w.plugin = w.newPlugin()
		w.plugin.restore(t.Context())
		if now := w.ledger("uid-train"); now == nil || now.Prepared {
			t.Errorf("held as %+v, want an intent that is looked at again", now)
		}
		if _, err := w.plugin.prepare(t.Context(), claim("next", "other", 0)); KindOf(err) != KindHeld {
			t.Errorf("next: %v", err)
		}
	})
}

func TestAdoptionDoesNotNeedTheDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start()
	c := w.allocate("train", "pod", nil, 0)
	if _, err := w.kubelet(nil).Prepare(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	w.end()
	w.checkpoint(c.UID)
	if err := os.RemoveAll(w.path("state")); err != nil {
		t.Fatal(err)
	}
	w.disk.fail(errors.New("no space left on device"))
	w.start()
	w.kubelet(nil)
	if held := w.held(c); held == nil || !held.Prepared {
		t.Errorf("held as %+v", held)
	}
}
