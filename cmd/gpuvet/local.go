package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"gpuvet.dev/exporter"
)

// serveWeb serves the port until ctx ends.
func (d *daemon) serveWeb(ctx context.Context) error {
	return exporter.Serve(ctx, d.web, &d.pages, d.o.webConfig, d.log.Named("http"))
}

// serveLocal serves the socket that the other commands use.
func (d *daemon) serveLocal(ctx context.Context) error {
	server := &http.Server{Handler: d.exporter.Local(d.detector.Submit), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second}
	answered := make(chan struct{})
	unused := context.AfterFunc(ctx, func() {
		defer close(answered)
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_ = server.Shutdown(limit)
	})
	err := server.Serve(d.local)
	if ctx.Err() == nil {
		unused()
		return fmt.Errorf("serve %s: %w", d.o.socket, err)
	}
	<-answered // who is still waiting gets his answer
	return nil
}

// maxSocket is the longest path that the kernel takes for a socket.
const maxSocket = 107

func checkSocket(path string) error {
	switch {
	case path == "":
		return badInput(`--socket "": expected a path`)
	case len(path) > maxSocket:
		return badInput("--socket %s: %d bytes long: expected at most %d", path, len(path), maxSocket)
	}
	return nil
}

// socketFlag is how a command that asks the daemon finds it.
func socketFlag(cmd *cobra.Command, socket *string) {
	cmd.Flags().StringVar(socket, "socket", defaultSocket(), "socket of the daemon")
}

// ask sends one request to the daemon of this node.
func ask(ctx context.Context, socket, method, path string, body []byte) ([]byte, error) {
	if err := checkSocket(socket); err != nil {
		return nil, err
	}
	client := &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}},
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://gpuvet"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("no gpuvet answers on %s: start it with \"gpuvet run\", or name its socket with --socket", socket)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("socket %s: permission denied: it belongs to the user that runs gpuvet", socket)
	case err != nil:
		return nil, fmt.Errorf("ask the daemon on %s: %w", socket, err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	if err != nil {
		return nil, fmt.Errorf("read the daemon's answer: %w", err)
	}
	if response.StatusCode >= 400 {
		text := string(bytes.TrimSpace(answer))
		var told exporter.ErrorAnswer
		if json.Unmarshal(answer, &told) == nil && told.Error != "" {
			text = told.Error
		}
		if response.StatusCode < 500 {
			return nil, badInput("%s", text)
		}
		return nil, errors.New(text)
	}
	return answer, nil
}

// command has the daemon do something, and gives what came of it.
func command[A any](ctx context.Context, socket, path string, request any) (A, error) {
	var done A
	body, err := json.Marshal(request)
	if err != nil {
		return done, fmt.Errorf("write the request: %w", err)
	}
	answer, err := ask(ctx, socket, http.MethodPost, path, body)
	if err != nil {
		return done, err
	}
	err = decode(answer, &done)
	return done, err
}

// decode reads an answer of the daemon.
func decode(answer []byte, into any) error {
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("the daemon's answer is not understood; is it of another version? %w", err)
	}
	return nil
}
