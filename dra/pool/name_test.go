package pool

import (
	"strings"
	"testing"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation"

	"gpuvet.dev/nvml"
)

func TestNamesAreLabelsThatTellDevicesApart(t *testing.T) {
	placed := func(profile string, start, size, ci int) *nvml.Instance {
		return &nvml.Instance{GPUInstance: 7, ComputeInstance: ci, Profile: profile, Start: nvml.Some(start), Size: nvml.Some(size)}
	}
	unplaced := &nvml.Instance{GPUInstance: 7, Profile: "1g.10gb"}
	seen := map[string]bool{}
	for _, c := range []struct {
		pci      string
		instance *nvml.Instance
		want     string
	}{
		{"0000:3b:00.0", nil, "gpu-0000-3b-00-0"},
		{"0001:3b:00.0", nil, "gpu-0001-3b-00-0"},
		{"10000:3b:00.0", nil, "gpu-10000-3b-00-0"},
		{"0000:3b:00.0", placed("1g.10gb", 4, 1, 0), "gpu-0000-3b-00-0-mig-1g-10gb-4-1-0"},
		{"0000:3b:00.0", placed("1g.10gb", 5, 1, 0), "gpu-0000-3b-00-0-mig-1g-10gb-5-1-0"},
		{"0000:3b:00.0", placed("1c.2g.20gb", 4, 2, 1), "gpu-0000-3b-00-0-mig-1c-2g-20gb-4-2-1"},
		{"0000:3b:00.0", placed("1g.24gb", 0, 2, 0), "gpu-0000-3b-00-0-mig-1g-24gb-0-2-0"},
		{"0000:3b:00.0", placed("1g.24gb+me", 0, 2, 0), "gpu-0000-3b-00-0-mig-1g-24gb-with-me-0-2-0"},
		{"0000:3b:00.0", placed("1g.24gb+me.all", 0, 2, 0), "gpu-0000-3b-00-0-mig-1g-24gb-with-me-all-0-2-0"},
		{"0000:3b:00.0", placed("1g.24gb-me", 0, 2, 0), "gpu-0000-3b-00-0-mig-1g-24gb-without-me-0-2-0"},
		{"0000:3b:00.0", unplaced, "gpu-0000-3b-00-0-mig-1g-10gb-gi7-0"},
		{"0000:3b:00.0", placed(strings.Repeat("9g.", 30), 0, 2, 0), "gpu-0000-3b-00-0-mig-0-2-0"},
	} {
		got := name(c.pci, c.instance)
		if got != c.want {
			t.Errorf("%s %+v: %s, want %s", c.pci, c.instance, got, c.want)
		}
		if faults := validation.IsDNS1123Label(got); len(faults) > 0 {
			t.Errorf("%s: %s", got, faults)
		}
		if seen[got] {
			t.Errorf("%s is the name of two devices", got)
		}
		seen[got] = true
	}
}

func TestVersionsAreSemanticOrLeftOut(t *testing.T) {
	for text, want := range map[string]string{
		"9.0": "9.0.0", "12.8": "12.8.0", "580.126.20": "580.126.20", "570.195.03": "570.195.3", "13": "13.0.0",
		"": "", "9.": "", ".9": "", "v9.0": "", "9.0-beta": "", "1.2.3.4": "", "-1.0": "", "9.0 ": "", "+9.0": "", "99999999999.0": "",
	} {
		got, ok := version(text)
		if got != want || ok != (want != "") {
			t.Errorf("%q: %q, %t, want %q", text, got, ok, want)
		}
	}
}

func TestLongTextIsCutBetweenLetters(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{strings.Repeat("x", 64), strings.Repeat("x", 64)},
		{strings.Repeat("x", 65), strings.Repeat("x", 64)},
		{strings.Repeat("ü", 33), strings.Repeat("ü", 32)},
		{"x" + strings.Repeat("ü", 33), "x" + strings.Repeat("ü", 31)},
		{"a\xffb", "ab"},
	} {
		if got := short(c.text); got != c.want || !utf8.ValidString(got) {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
}
