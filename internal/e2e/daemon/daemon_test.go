package daemon

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

func TestFleetsHaveNoGPUInCommon(t *testing.T) {
	a, b := NewFleet(8), NewFleet(8)
	if a[0].PCI == b[0].PCI {
		t.Errorf("two fleets have a GPU at %s", a[0].PCI)
	}
	form := regexp.MustCompile(`^[89a-f][0-9a-f]{3}:[0-9a-f]{2}:[01][0-9a-f]\.0$`)
	for _, gpu := range a {
		if !form.MatchString(gpu.PCI) {
			t.Errorf("PCI address %q does not match %s", gpu.PCI, form)
		}
	}
}

func TestXidLineIsTheDrivers(t *testing.T) {
	got := GPU{PCI: "ab12:01:00.0"}.Xid(79, "pid='<unknown>', name=<unknown>, GPU has fallen off the bus.")
	want := "NVRM: Xid (PCI:ab12:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("line (-want +got):\n%s", diff)
	}
}

func TestMetricValue(t *testing.T) {
	const exposition = `
# TYPE gpuvet_gpu_xid_total counter
gpuvet_gpu_xid_total{gpu="0",xid="79"} 2
gpuvet_gpu_xid_total{gpu="1",xid="79"} 0
`
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(exposition))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		labels []string
		want   float64
		err    string
	}{
		{name: "one series", labels: []string{"gpu", "0"}, want: 2},
		{name: "zero is a value", labels: []string{"gpu", "1", "xid", "79"}, want: 0},
		{name: "several series", labels: []string{"xid", "79"}, err: "2 series"},
		{name: "no series", labels: []string{"gpu", "2"}, err: "0 series"},
		{name: "no such label", labels: []string{"pod", ""}, err: "0 series"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Metrics(families).Value("gpuvet_gpu_xid_total", tt.labels...)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Errorf("got %v, %v, want %v", got, err, tt.want)
			}
		})
	}
}
