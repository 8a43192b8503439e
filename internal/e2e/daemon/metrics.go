package daemon

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Metrics is one scrape of the daemon.
type Metrics map[string]*dto.MetricFamily

// Metrics scrapes the daemon. The text must be what Prometheus accepts.
func (d *Daemon) Metrics(t testing.TB) Metrics {
	t.Helper()
	metrics, err := d.scrape(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return metrics
}

// Value scrapes the daemon for one series, as [Metrics.Value] does.
func (d *Daemon) Value(ctx context.Context, name string, labels ...string) (float64, error) {
	metrics, err := d.scrape(ctx)
	if err != nil {
		return 0, err
	}
	return metrics.Value(name, labels...)
}

func (d *Daemon) scrape(ctx context.Context) (Metrics, error) {
	body, err := d.get(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("parse metrics: %w", err)
	}
	return families, nil
}

// Value is the value of the one series with that name and these labels, given
// as pairs of name and value; it may have more labels. It is an error if there
// is no such series or more than one. Histograms have no value.
func (m Metrics) Value(name string, labels ...string) (float64, error) {
	wanted := map[string]string{}
	for i := 0; i+1 < len(labels); i += 2 {
		wanted[labels[i]] = labels[i+1]
	}
	var found []*dto.Metric
	for _, metric := range m[name].GetMetric() {
		if includes(metric.GetLabel(), wanted) {
			found = append(found, metric)
		}
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("%d series %s%v, want one", len(found), name, wanted)
	}
	switch metric := found[0]; {
	case metric.Counter != nil:
		return metric.GetCounter().GetValue(), nil
	case metric.Gauge != nil:
		return metric.GetGauge().GetValue(), nil
	default:
		return metric.GetUntyped().GetValue(), nil
	}
}

func includes(labels []*dto.LabelPair, wanted map[string]string) bool {
	missing := maps.Clone(wanted)
	for _, label := range labels {
		if value, ok := missing[label.GetName()]; ok && value == label.GetValue() {
			delete(missing, label.GetName())
		}
	}
	return len(missing) == 0
}
