package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Config is the section node of the config file.
type Config struct {
	// Taint says when a fault of a GPU taints the whole node.
	Taint TaintMode `json:"taint"`
	// TaintWhenUnhealthy is how many bad GPUs make the node bad where devices
	// are fenced one by one.
	TaintWhenUnhealthy Threshold `json:"taintWhenUnhealthy"`
	// Heartbeat is how often the condition says that it is still true, within
	// 10 %.
	Heartbeat metav1.Duration `json:"heartbeat"`
}

// TaintMode says when a fault taints the node.
type TaintMode string

// The modes.
const (
	// TaintAuto leaves a fault of one GPU to device fencing where there is any.
	TaintAuto   TaintMode = "auto"
	TaintAlways TaintMode = "always"
	TaintNever  TaintMode = "never"
)

// Threshold is a number of GPUs; zero, written all, stands for every GPU of the
// node.
type Threshold int

// AllGPUs is the threshold that is written all.
const AllGPUs Threshold = 0

// UnmarshalJSON reads all or a number.
func (t *Threshold) UnmarshalJSON(data []byte) error {
	if string(data) == `"all"` {
		*t = AllGPUs
		return nil
	}
	n, err := strconv.Atoi(string(data))
	if err != nil || n < 1 {
		return fmt.Errorf("taintWhenUnhealthy is %s, expected all or a number from 1", data)
	}
	*t = Threshold(n)
	return nil
}

// MarshalJSON writes what UnmarshalJSON reads.
func (t Threshold) MarshalJSON() ([]byte, error) {
	if t == AllGPUs {
		return json.Marshal("all")
	}
	return json.Marshal(int(t))
}

// DefaultConfig is what holds where the file says nothing.
func DefaultConfig() Config {
	return Config{Taint: TaintAuto, TaintWhenUnhealthy: AllGPUs, Heartbeat: metav1.Duration{Duration: 5 * time.Minute}}
}

const (
	minHeartbeat = 10 * time.Second
	maxHeartbeat = time.Hour
)

// Validate names each field whose value cannot be used, and what can.
func (c Config) Validate() error {
	var faults []error
	switch c.Taint {
	case TaintAuto, TaintAlways, TaintNever:
	default:
		faults = append(faults, fmt.Errorf("node.taint: %q: expected auto, always or never", c.Taint))
	}
	if c.TaintWhenUnhealthy < 0 {
		faults = append(faults, fmt.Errorf("node.taintWhenUnhealthy: %d: expected all or a number from 1", int(c.TaintWhenUnhealthy)))
	}
	if h := c.Heartbeat.Duration; h < minHeartbeat || h > maxHeartbeat {
		faults = append(faults, fmt.Errorf("node.heartbeat: %v: expected 10s to 1h", h))
	}
	return errors.Join(faults...)
}
