package main

import (
	"fmt"
	"io"
	"net"
	"os"

	"go.uber.org/zap"
	"sigs.k8s.io/yaml"

	"gpuvet.dev/dra/pool"
)

// welcome says what runs and where to look: to people as they would type it,
// to collectors as fields.
func (d *daemon) welcome(w io.Writer) {
	metrics := d.url() + "/metrics"
	told := d.told
	switch {
	case d.output == nil && d.o.standalone:
		told = "nobody: standalone"
	case d.output == nil:
		told = "nobody: no --kubeconfig, and not in a pod"
	case d.o.dryRun:
		told += ", in a dry run: nothing is written"
	case d.allocation != nil:
		told += ", GPUs offered as " + pool.DriverName
	}
	gpus := "of this node"
	if d.gpus.scripted != nil {
		gpus = "fake, played from " + d.o.fakeNVML
	}
	if textual(w, d.o.logFormat) {
		look := "gpuvet status"
		if d.o.socket != defaultSocket() {
			look += " --socket " + d.o.socket
		}
		fmt.Fprintf(w, "gpuvet %s\n  GPUs      %s\n  look      %s\n            %s/\n  metrics   %s\n  state     %s\n  cluster   %s\n",
			buildVersion(), gpus, look, d.url(), metrics, d.o.stateDir, told)
	} else {
		d.log.Info("gpuvet is starting", zap.String("version", buildVersion()), zap.String("gpus", gpus),
			zap.String("metrics", metrics), zap.String("socket", d.o.socket), zap.String("state", d.o.stateDir), zap.String("cluster", told))
	}
	if d.o.acceptUserLines {
		d.log.Warn("kernel-log lines of any process are believed: this is a test")
	}
}

// url is where a browser on this machine finds the daemon.
func (d *daemon) url() string {
	scheme, host := "http", "localhost"
	if usesTLS(d.o.webConfig) {
		scheme = "https"
	}
	address, ok := d.web.Addr().(*net.TCPAddr)
	if !ok {
		return scheme + "://" + d.o.listen
	}
	if !address.IP.IsUnspecified() {
		host = address.IP.String()
	}
	return scheme + "://" + net.JoinHostPort(host, fmt.Sprint(address.Port))
}

// usesTLS reads no more of the exporter toolkit's file than that; the file was
// found to be good before.
func usesTLS(webConfig string) bool {
	data, err := os.ReadFile(webConfig)
	if err != nil {
		return false
	}
	var c struct {
		TLS map[string]any `json:"tls_server_config"`
	}
	return yaml.Unmarshal(data, &c) == nil && len(c.TLS) > 0
}
