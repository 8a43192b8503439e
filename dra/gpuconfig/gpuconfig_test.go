package gpuconfig

import (
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

const driver = "gpu.gpuvet.dev"

func TestConfigurationIsReadStrictly(t *testing.T) {
	head := `"apiVersion":"gpuvet.dev/v1alpha1","kind":"GPUConfig"`
	for text, want := range map[string]string{
		`{` + head + `}`:                                          "",
		`{` + head + `,"preflight":"none"}`:                       "",
		`{` + head + `,"preflight":"quick"}`:                      `preflight is "quick", expected state or none`,
		`{` + head + `,"Preflight":"none"}`:                       `unknown field "Preflight"`,
		`{` + head + `,"preflight":"none","preflight":"state"}`:   `duplicate field "preflight"`,
		`{` + head + `,"preflight":1}`:                            "cannot unmarshal number",
		`{"apiVersion":"gpuvet.dev/v1","kind":"GPUConfig"}`:       `apiVersion is "gpuvet.dev/v1", expected gpuvet.dev/v1alpha1`,
		`{"apiVersion":"gpuvet.dev/v1alpha1","kind":"GpuConfig"}`: `kind is "GpuConfig", expected GPUConfig`,
		`{}`: "apiVersion is \"\", expected gpuvet.dev/v1alpha1; kind is \"\", expected GPUConfig",
		``:   "decode",
	} {
		_, err := Decode([]byte(text))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// entry is a configuration: who has written it, for which requests, and for which
// driver.
type entry struct {
	source   resourceapi.AllocationConfigSource
	requests []string
	driver   string
	level    string
}

func TestClaimAsksForMoreAndNotForLess(t *testing.T) {
	const class, claim = resourceapi.AllocationConfigSourceClass, resourceapi.AllocationConfigSourceClaim
	for name, c := range map[string]struct {
		node    Preflight
		entries []entry
		want    Preflight // empty: an error
	}{
		"nobody says anything":            {State, nil, State},
		"the node looks at nothing":       {None, nil, None},
		"a class asks for less":           {State, []entry{{class, nil, driver, "none"}}, None},
		"a class asks for more":           {None, []entry{{class, nil, driver, "state"}}, State},
		"a class that leaves it open":     {State, []entry{{class, nil, driver, ""}}, State},
		"a claim asks for less":           {State, []entry{{claim, nil, driver, "none"}}, ""},
		"less than its class":             {None, []entry{{class, nil, driver, "state"}, {claim, nil, driver, "none"}}, ""},
		"a claim asks for as little":      {State, []entry{{class, nil, driver, "none"}, {claim, nil, driver, "none"}}, None},
		"a claim asks for more":           {None, []entry{{claim, nil, driver, "state"}}, State},
		"for this request":                {None, []entry{{claim, []string{"gpu"}, driver, "state"}}, State},
		"for another request":             {None, []entry{{claim, []string{"other"}, driver, "state"}}, None},
		"of another driver":               {State, []entry{{claim, nil, "gpu.nvidia.com", "broken"}}, State},
		"the later one of two of a claim": {None, []entry{{claim, nil, driver, "none"}, {claim, nil, driver, "state"}}, State},
		"a bad one for another request":   {State, []entry{{claim, []string{"other"}, driver, "broken"}}, State},
		"a bad one":                       {State, []entry{{claim, nil, driver, "broken"}}, ""},
		"the subrequest that was chosen":  {None, []entry{{claim, []string{"gpu/large"}, driver, "state"}}, None},
	} {
		t.Run(name, func(t *testing.T) {
			a := &resourceapi.AllocationResult{}
			for _, e := range c.entries {
				text := `{"apiVersion":"gpuvet.dev/v1alpha1","kind":"GPUConfig","preflight":"` + e.level + `"}`
				a.Devices.Config = append(a.Devices.Config, resourceapi.DeviceAllocationConfiguration{
					Source: e.source, Requests: e.requests,
					DeviceConfiguration: resourceapi.DeviceConfiguration{Opaque: &resourceapi.OpaqueDeviceConfiguration{
						Driver: e.driver, Parameters: runtime.RawExtension{Raw: []byte(text)},
					}},
				})
			}
			got, err := PreflightOf(c.node, driver, a, resourceapi.DeviceRequestAllocationResult{Request: "gpu"})
			if got != c.want || (err != nil) != (c.want == "") {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
}
