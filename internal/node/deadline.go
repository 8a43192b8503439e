package node

import (
	"context"
	"errors"
	"io"
	"net/http"

	"k8s.io/client-go/rest"
)

// Bounded is a way to the API server on which no call lasts for ever: all but
// watches end after 8 s, and then the connections are dropped. It is for clients
// that set no deadlines of their own.
func (c *Cluster) Bounded() *rest.Config {
	bounded := rest.CopyConfig(c.Config)
	bounded.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return deadline{next: next, late: c.Reconnect}
	})
	return bounded
}

// deadline ends calls that hang.
type deadline struct {
	next http.RoundTripper
	late func()
}

// RoundTrip implements [http.RoundTripper].
func (d deadline) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Query().Get("watch") != "" {
		return d.next.RoundTrip(r)
	}
	ctx, cancel := context.WithTimeout(r.Context(), callLimit)
	response, err := d.next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			d.late()
		}
		cancel()
		return nil, err
	}
	response.Body = body{ReadCloser: response.Body, done: cancel}
	return response, nil
}

// body keeps the deadline until the answer was read.
type body struct {
	io.ReadCloser
	done context.CancelFunc
}

// Close ends the call.
func (b body) Close() error {
	defer b.done()
	return b.ReadCloser.Close()
}
