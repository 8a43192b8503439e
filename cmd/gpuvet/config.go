package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"gpuvet.dev/detector"
	"gpuvet.dev/dra"
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
	APIVersion string                `json:"apiVersion"`
	Kind       string                `json:"kind"`
	Policy     detector.PolicyConfig `json:"policy,omitzero"`
	Node       node.Config           `json:"node,omitzero"`
	DRA        dra.Config            `json:"dra,omitzero"`
	Trail      trailConfig           `json:"trail,omitzero"`

	policy *detector.Policy // of the section
	text   []byte           // of the file; nil: there is none
}

// changed lists the sections by which two files differ, but for the policy,
// which is taken while the daemon runs.
func (c config) changed(other config) []string {
	var sections []string
	for name, section := range reflect.ValueOf(c).Fields() {
		key, _, _ := strings.Cut(name.Tag.Get("json"), ",")
		if key == "" || key == "policy" {
			continue
		}
		if !reflect.DeepEqual(section.Interface(), reflect.ValueOf(other).FieldByIndex(name.Index).Interface()) {
			sections = append(sections, key)
		}
	}
	return sections
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
	c := config{Node: node.DefaultConfig(), DRA: dra.DefaultConfig(), policy: detector.DefaultPolicy()}
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named:
		return c, nil
	case err != nil:
		return c, badInput("--config: %w", err)
	}
	c.text = data
	if err := readDocument(data, &c); err != nil {
		return c, inFile(path, err)
	}
	var faults []error
	if c.APIVersion != configVersion {
		faults = append(faults, fmt.Errorf("apiVersion: %q: expected %s", c.APIVersion, configVersion))
	}
	if c.Kind != configKind {
		faults = append(faults, fmt.Errorf("kind: %q: expected %s", c.Kind, configKind))
	}
	for i := range c.Policy.Rows {
		c.Policy.Rows[i].Source = fmt.Sprintf("file: %s policy.rows[%d]", path, i)
	}
	if c.Policy.PolicyParameters != (detector.PolicyParameters{}) {
		c.Policy.Source = fmt.Sprintf("file: %s policy", path)
	}
	policy, err := c.Policy.Policy()
	c.policy = policy
	faults = append(faults, err, c.Node.Validate(), c.DRA.Validate())
	if err := errors.Join(faults...); err != nil {
		return c, inFile(path, err)
	}
	return c, nil
}

// inFile is bad input of which each line names its file.
func inFile(path string, err error) error {
	return badInput("%s: %s", path, strings.ReplaceAll(err.Error(), "\n", "\n"+path+": "))
}

// duration is a Go duration of more than zero, as "720h".
type duration time.Duration

func (d *duration) UnmarshalJSON(data []byte) error {
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	parsed, err := time.ParseDuration(s)
	if err != nil {
		return err
	}
	if parsed <= 0 {
		return fmt.Errorf("%s is not more than zero", parsed)
	}
	*d = duration(parsed)
	return nil
}

// size is a number of bytes, as 256Mi; at most 1 TiB.
type size int64

const maxSize = 1 << 40

func (s *size) UnmarshalJSON(data []byte) error {
	text := strings.Trim(string(data), `"`)
	shift := 0
	for suffix, bits := range map[string]int{"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40} {
		if rest, ok := strings.CutSuffix(text, suffix); ok {
			text, shift = rest, bits
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return err
	}
	if n <= 0 || n > maxSize>>shift {
		return fmt.Errorf("%s is out of range", data)
	}
	*s = size(n << shift)
	return nil
}
