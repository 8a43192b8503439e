package daemon

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// pages are those that a daemon serves over HTTP.
type pages struct {
	// address is where, with the port. It changes with the pod that the daemon is in.
	address func(ctx context.Context) (string, error)
}

// Metrics scrapes the daemon. The text must be what Prometheus accepts.
func (p pages) Metrics(t testing.TB) Metrics {
	t.Helper()
	metrics, err := p.scrape(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return metrics
}

// Value scrapes the daemon for one series, as [Metrics.Value] does.
func (p pages) Value(ctx context.Context, name string, labels ...string) (float64, error) {
	metrics, err := p.scrape(ctx)
	if err != nil {
		return 0, err
	}
	return metrics.Value(name, labels...)
}

func (p pages) scrape(ctx context.Context) (Metrics, error) {
	body, err := p.get(ctx, "/metrics")
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

// get reads a page. Any answer but 200 is an error.
func (p pages) get(ctx context.Context, path string) (string, error) {
	ctx, stop := context.WithTimeout(ctx, 5*time.Second)
	defer stop()
	address, err := p.address(ctx)
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return "", fmt.Errorf("ask daemon for %s: %w", path, err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", fmt.Errorf("ask daemon for %s: %w", path, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return "", fmt.Errorf("read %s of daemon: %w", path, err)
	}
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("daemon answers %s with %s: %s", path, answer.Status, body)
	}
	return string(body), nil
}
