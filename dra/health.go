package dra

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"

	"gpuvet.dev/detector"
	"gpuvet.dev/dra/pool"
)

const (
	// healthAgain is how often the kubelet hears the same again.
	healthAgain = 10 * time.Second
	// healthLease is after what time without a report it takes the health of a device
	// for unknown.
	healthLease = time.Minute
	// healthBreath is the least time between two looks at what has changed: a storm of
	// events is one of snapshots too, and a large node takes milliseconds to judge.
	healthBreath = 50 * time.Millisecond
	// maxHealthMessage is what the kubelet keeps of a message, in bytes.
	maxHealthMessage = 1024
)

// WatchHealthStatus tells the kubelet of all devices, at once, at each change and
// every 10 s. It says what the slices say, for both come from the same snapshots. If
// the fold is stuck it falls silent, and the kubelet knows nothing after a minute.
func (s *session) WatchHealthStatus(ctx context.Context, reports chan<- kubeletplugin.DeviceHealthReport) error {
	if !s.calls.begin() {
		return errStopping
	}
	defer s.calls.end()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	snapshots := make(chan *detector.Snapshot)
	wg.Go(func() { s.plugin.follow(ctx, snapshots) })
	again := time.NewTicker(healthAgain)
	defer again.Stop()
	var told []kubeletplugin.DeviceHealth
	for first := true; ; first = false {
		var news []kubeletplugin.DeviceHealth
		select {
		case <-ctx.Done():
			return nil
		case snapshot := <-snapshots:
			news = s.plugin.health(snapshot)
			if !first && slices.Equal(told, news) {
				continue
			}
		case <-again.C:
			if err := s.plugin.o.Detector.Alive(); err != nil {
				s.plugin.o.Log.Error("the kubelet is told no health", zap.Error(err))
				continue
			}
			news = s.plugin.health(s.plugin.o.Detector.Snapshot())
		}
		told = news
		select {
		case <-ctx.Done():
			return nil
		case reports <- kubeletplugin.DeviceHealthReport{Devices: dated(told, time.Now())}:
		}
	}
}

// follow passes the newest snapshots on, until ctx ends.
func (p *Plugin) follow(ctx context.Context, to chan<- *detector.Snapshot) {
	for snapshot := range p.o.Detector.Watch(ctx) {
		select {
		case <-ctx.Done():
			return
		case to <- snapshot:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(healthBreath):
		}
	}
}

// health is what a snapshot says of every device, without a time.
func (p *Plugin) health(s *detector.Snapshot) []kubeletplugin.DeviceHealth {
	devices := p.devices(s)
	all := make([]kubeletplugin.DeviceHealth, len(devices))
	for i := range devices {
		all[i] = kubeletplugin.DeviceHealth{PoolName: p.o.Node, DeviceName: devices[i].Name, HealthCheckTimeout: healthLease}
		all[i].Health, all[i].Message = condition(&devices[i], s.Pause)
	}
	return all
}

// dated is the same as of a moment: the kubelet counts the lease from then.
func dated(devices []kubeletplugin.DeviceHealth, at time.Time) []kubeletplugin.DeviceHealth {
	all := slices.Clone(devices)
	for i := range all {
		all[i].LastUpdated = at
	}
	return all
}

// condition is the health of a device in the kubelet's three words, and why.
func condition(d *pool.Device, pause *detector.Pause) (kubeletplugin.HealthStatus, string) {
	faults := slices.DeleteFunc(slices.Clone(d.Conditions), func(c detector.Condition) bool { return c.Class == detector.Application })
	switch d.Status {
	case detector.Unhealthy:
		return kubeletplugin.HealthStatusUnhealthy, told(faults)
	case detector.Unknown:
		if pause != nil {
			return kubeletplugin.HealthStatusUnknown, bounded("not monitored: " + pause.String())
		}
		return kubeletplugin.HealthStatusUnknown, "no fresh reading of the GPU"
	case detector.Degraded:
		return kubeletplugin.HealthStatusHealthy, told(faults)
	case detector.Healthy:
	}
	return kubeletplugin.HealthStatusHealthy, ""
}

// told is faults in words, worst first.
func told(faults []detector.Condition) string {
	texts := make([]string, len(faults))
	for i, c := range faults {
		texts[i] = string(c.Reason) + " since " + c.Since.UTC().Format(time.RFC3339) + " (" + c.Cause + "): " + remedy(c.Action)
	}
	return bounded(strings.Join(texts, "; "))
}

func bounded(s string) string {
	if len(s) <= maxHealthMessage {
		return s
	}
	return strings.ToValidUTF8(s[:maxHealthMessage-len("...")], "") + "..."
}
