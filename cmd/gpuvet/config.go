package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"gpuvet.dev/internal/node"
	"gpuvet.dev/internal/trail"
)

const (
	defaultConfig = "/etc/gpuvet/gpuvet.yaml"
	configVersion = "gpuvet.dev/v1alpha1"
	configKind    = "Config"
)

// config is the YAML file that says what gpuvet does; flags say where.
type config struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Node       node.Config `json:"node,omitzero"`
	Trail      trailConfig `json:"trail,omitzero"`
}

// trailConfig bounds the history.
type trailConfig struct {
	Retention duration `json:"retention,omitzero"` // 720h
	MaxBytes  size     `json:"maxBytes,omitzero"`  // 256Mi
}

func (t trailConfig) options(boot string) trail.Options {
	return trail.Options{Retention: time.Duration(t.Retention), MaxBytes: int64(t.MaxBytes), Boot: boot}
}

// loadConfig reads the file strictly. The default file need not exist; one that
// was named must.
func loadConfig(path string, named bool) (config, error) {
	c := config{Node: node.DefaultConfig()}
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named:
		return c, nil
	case err != nil:
		return c, inputError{fmt.Errorf("read config: %w", err)}
	}
	if err := yaml.UnmarshalStrict(data, &c); err != nil {
		return c, badInput("%s: %s", path, strings.TrimPrefix(err.Error(), "error unmarshaling JSON: while decoding JSON: "))
	}
	if c.APIVersion != configVersion {
		return c, badInput("%s: apiVersion: %q: expected %s", path, c.APIVersion, configVersion)
	}
	if c.Kind != configKind {
		return c, badInput("%s: kind: %q: expected %s", path, c.Kind, configKind)
	}
	if err := c.Node.Validate(); err != nil {
		return c, badInput("%s: %w", path, err)
	}
	return c, nil
}

// duration is a Go duration of more than zero, as "720h".
type duration time.Duration

func (d *duration) UnmarshalJSON(data []byte) error {
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("duration %s: expected text such as \"720h\"", data)
	}
	parsed, err := time.ParseDuration(s)
	if err != nil || parsed <= 0 {
		return fmt.Errorf("duration %q: expected more than zero, such as 720h", s)
	}
	*d = duration(parsed)
	return nil
}

// size is a number of bytes, as 256Mi.
type size int64

func (s *size) UnmarshalJSON(data []byte) error {
	text := strings.Trim(string(data), `"`)
	shift := 0
	for suffix, bits := range map[string]int{"Ki": 10, "Mi": 20, "Gi": 30} {
		if rest, ok := strings.CutSuffix(text, suffix); ok {
			text, shift = rest, bits
		}
	}
	var n int64
	if _, err := fmt.Sscanf(text+"\n", "%d\n", &n); err != nil || n <= 0 || n > 1<<40>>shift {
		return fmt.Errorf("size %s: expected a number of bytes such as 256Mi", data)
	}
	*s = size(n << shift)
	return nil
}
