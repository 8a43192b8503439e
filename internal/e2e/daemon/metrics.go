package daemon

import (
	"fmt"
	"maps"

	dto "github.com/prometheus/client_model/go"
)

// Metrics is one scrape of the daemon.
type Metrics map[string]*dto.MetricFamily

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
