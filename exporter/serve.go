package exporter

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	headerLimit   = 5 * time.Second
	requestLimit  = 10 * time.Second
	answerLimit   = 30 * time.Second
	idleLimit     = 2 * time.Minute
	headerBytes   = 16 << 10
	shutdownLimit = 5 * time.Second
)

// Serve answers on a listener until ctx ends, and then gives requests under way
// 5 s; it returns nil. The web configuration is that of Prometheus' exporter
// toolkit, for TLS, passwords and a rate limit; with an empty name there are
// none. One that is wrong is an error before anything is served. The listener
// is closed in every case.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler, webConfigFile string, log *zap.Logger) error {
	if err := web.Validate(webConfigFile); err != nil {
		return errors.Join(fmt.Errorf("read web configuration %s: %w", webConfigFile, err), listener.Close())
	}
	errorLog, err := zap.NewStdLogAt(log, zapcore.DebugLevel) // a port scan makes one line per attempt
	if err != nil {
		return errors.Join(fmt.Errorf("make a log for the server: %w", err), listener.Close())
	}
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerLimit,
		ReadTimeout:       requestLimit,
		WriteTimeout:      answerLimit,
		IdleTimeout:       idleLimit,
		MaxHeaderBytes:    headerBytes,
		ErrorLog:          errorLog,
	}
	ended := make(chan struct{})
	var stop sync.WaitGroup
	stop.Go(func() {
		select {
		case <-ctx.Done():
			shutdown(ctx, server)
		case <-ended:
		}
	})
	log.Info("serving metrics", zap.Stringer("address", listener.Addr()), zap.String("webConfig", webConfigFile))
	err = web.Serve(listener, server, &web.FlagConfig{WebConfigFile: &webConfigFile}, newSlog(log))
	close(ended)
	stop.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return errors.Join(fmt.Errorf("serve metrics: %w", err), closed(listener))
}

func shutdown(ctx context.Context, server *http.Server) {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownLimit)
	defer cancel()
	if server.Shutdown(limited) != nil {
		_ = server.Close() // whoever is still connected has had his time
	}
}

// closed closes a listener that the server may have closed already.
func closed(l net.Listener) error {
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
