package exporter

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"

	"gpuvet.dev/detector"
)

// collector writes the table's families. Each scrape walks the newest snapshot
// and sample, and so has all its values from one of each. Series are made once
// and used again as long as the walk meets the same ones in the same order,
// which is until a GPU, a fault or an Xid comes or goes.
type collector struct {
	sources   Sources
	policy    *detector.Policy // that alertable is of
	alertable []int
	started   *timestamppb.Timestamp
	descs     [families]*prometheus.Desc

	mu    sync.Mutex
	known []*series // those of the last scrape, in its order
}

func newCollector(s Sources, started time.Time) *collector {
	c := &collector{sources: s, started: timestamppb.New(started)}
	for f, r := range table {
		c.descs[f] = prometheus.NewDesc(r.name, r.help, r.labels, nil)
	}
	return c
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	points := c.write()
	for i := range points {
		ch <- &points[i]
	}
}

func (c *collector) write() []point {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sources.Policy != nil {
		if policy := c.sources.Policy(); policy != c.policy {
			c.policy, c.alertable = policy, policy.Alertable()
		}
	}
	p := &page{collector: c, points: make([]point, 0, len(c.known)+64)}
	snapshot, sample := c.sources.Snapshot(), c.sources.sample()
	p.gpus(snapshot, sample, time.Now())
	p.daemon(snapshot, sample)
	clear(c.known[len(p.points):])
	c.known = c.known[:len(p.points)]
	return p.points
}

// page is one scrape as it is written.
type page struct {
	*collector
	points []point
}

// put writes one value. The labels are those of the family's row, in its order.
func (p *page) put(f family, value float64, labels ...string) {
	i := len(p.points)
	if i == len(p.known) {
		p.known = append(p.known, nil)
	}
	if s := p.known[i]; s == nil || s.family != f || !slices.Equal(s.labels, labels) {
		p.known[i] = p.series(f, labels)
	}
	p.points = append(p.points, point{series: p.known[i], value: value})
}

func (p *page) flag(f family, on bool, labels ...string) {
	value := 0.0
	if on {
		value = 1
	}
	p.put(f, value, labels...)
}

// at writes a time, unless it is zero.
func (p *page) at(f family, t time.Time, labels ...string) {
	if !t.IsZero() {
		p.put(f, float64(t.UnixNano())/1e9, labels...)
	}
}

// series is what does not change about one series. It is never written again.
type series struct {
	family  family
	labels  []string // as given
	desc    *prometheus.Desc
	pairs   []*dto.LabelPair
	created *timestamppb.Timestamp // nil if unknown
}

func (c *collector) series(f family, labels []string) *series {
	s := &series{family: f, labels: slices.Clone(labels), desc: c.descs[f]}
	valid := make([]string, len(labels))
	for i, value := range labels {
		// The driver's strings are bytes; one odd byte must not cost the series.
		valid[i] = strings.ToValidUTF8(value, "\uFFFD")
	}
	s.pairs = prometheus.MakeLabelPairs(s.desc, valid)
	if table[f].ours {
		s.created = c.started
	}
	return s
}

// point is one series in one scrape.
type point struct {
	series *series
	value  float64
}

// Desc implements [prometheus.Metric].
func (p *point) Desc() *prometheus.Desc { return p.series.desc }

// Write implements [prometheus.Metric].
func (p *point) Write(out *dto.Metric) error {
	out.Label = p.series.pairs
	if table[p.series.family].counter {
		out.Counter = &dto.Counter{Value: &p.value, CreatedTimestamp: p.series.created}
	} else {
		out.Gauge = &dto.Gauge{Value: &p.value}
	}
	return nil
}
