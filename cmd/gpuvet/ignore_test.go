package main

import (
	"slices"
	"strings"
	"testing"

	"gpuvet.dev/detector"
)

const oneWithALink = `
gpus: {count: 2, profile: h100}
timeline:
- {at: 50ms, gpu: 1, xid: 74, recovery: none}
`

func TestIgnoreHidesOneReasonForAWhile(t *testing.T) {
	dir := t.TempDir()
	d := startScenario(t, dir, oneWithALink)
	d.untilStatus(1, detector.Unhealthy)
	pci := d.gpu(1).PCI
	words := ": LinkFault ignored by hand (jane) until T"
	got := untilTime.ReplaceAllString(output(t, "", "ignore", "1", "LinkFault", "--for", "2h", "--author", "jane", "--socket", d.socket), "T")
	if want := pci + words + "\n"; got != want {
		t.Errorf("ignore prints %q, want %q", got, want)
	}
	if g := d.gpu(1); g.Status != detector.Healthy || len(reasonsOf(g)) > 0 {
		t.Errorf("GPU 1 is %s, %v", g.Status, reasonsOf(g))
	}
	if status := untilTime.ReplaceAllString(d.status(), "T"); !strings.Contains(status, "\n"+pci+words+"; the GPU has it: Xid 74\n") {
		t.Errorf("status does not show it:\n%s", status)
	}
	if got := d.metric(`gpuvet_gpu_ignored_until_timestamp_seconds{gpu="1",reason="LinkFault",uuid="` + d.gpu(1).UUID + `"}`); got == "" {
		t.Error("no metric shows it")
	}
	got = untilTime.ReplaceAllString(output(t, "", "unignore", pci, "LinkFault", "--socket", d.socket), "T")
	if want := pci + ": LinkFault counts again; it was LinkFault ignored by hand (jane) until T\n"; got != want {
		t.Errorf("unignore prints %q, want %q", got, want)
	}
	if g := d.gpu(1); g.Status != detector.Unhealthy || !slices.Contains(reasonsOf(g), detector.LinkFault) {
		t.Errorf("GPU 1 is %s, %v", g.Status, reasonsOf(g))
	}
	if got, want := output(t, "", "unignore", "1", "LinkFault", "--socket", d.socket), pci+": LinkFault was not ignored\n"; got != want {
		t.Errorf("unignore prints %q, want %q", got, want)
	}
}

func TestClearEndsWhatIsIgnored(t *testing.T) {
	d := startScenario(t, t.TempDir(), oneWithALink)
	d.untilStatus(1, detector.Unhealthy)
	output(t, "", "ignore", "1", "LinkFault", "--socket", d.socket)
	if got, want := output(t, "", "clear", "1", "LinkFault", "--socket", d.socket), d.gpu(1).PCI+": cleared LinkFault\n"; got != want {
		t.Errorf("clear prints %q, want %q", got, want)
	}
}

func TestWrongIgnoreIsRefused(t *testing.T) {
	for _, length := range []string{"", "59s", "721h", "soon"} {
		refused(t, []string{"ignore", "1", "LinkFault", "--for", length}, "--for", `"`+length+`"`, "expected a duration from 1m to 720h, such as 24h")
	}
	refused(t, []string{"ignore", "1"}, "gpuvet: ignore: 1 argument: expected a GPU and a reason")
	refused(t, []string{"unignore", "1", "LinkFault", "now"}, "3 arguments")
	d := startScenario(t, t.TempDir(), twoWell)
	d.ready()
	refused(t, []string{"ignore", "7", "LinkFault", "--socket", d.socket}, `"7"`, "2 GPUs")
	refused(t, []string{"ignore", "1", "LinkFault", "--author", "a\nb", "--socket", d.socket}, "author", "on one line")
	refused(t, []string{"unignore", "1", "linkfault", "--socket", d.socket}, `"linkfault"`, "expected one of")
	if got := d.gpu(1).Ignored; len(got) > 0 {
		t.Errorf("ignored all the same: %v", got)
	}
}
