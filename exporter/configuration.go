package exporter

import "time"

// Configuration tells how the last look at the configuration file went.
type Configuration struct {
	Path string
	// Loaded is when a file, or the absence of one, was taken last.
	Loaded time.Time
	// Err is why the file as it is now is not in force; nil if it is.
	Err error
	// Restart lists the sections that have changed and wait for a restart.
	Restart []string
	// Rows is how many rows of the policy in force are the user's.
	Rows int
}

// ConfigurationReport is the same for the local API.
type ConfigurationReport struct {
	Path         string    `json:"path"`
	Loaded       time.Time `json:"loaded"`                 // last success
	Error        string    `json:"error,omitempty"`        // why the file as it is now is not in force
	NeedsRestart []string  `json:"needsRestart,omitempty"` // sections
	PolicyRows   int       `json:"policyRows"`             // of the user, in force
}

func (c Configuration) report() *ConfigurationReport {
	r := &ConfigurationReport{Path: c.Path, Loaded: c.Loaded.UTC(), NeedsRestart: c.Restart, PolicyRows: c.Rows}
	if c.Err != nil {
		r.Error = c.Err.Error()
	}
	return r
}

func (p *page) configuration(c Configuration) {
	p.flag(configReload, c.Err == nil)
	p.at(configReloaded, c.Loaded)
}
