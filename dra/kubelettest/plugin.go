package kubelettest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	healthv1 "k8s.io/kubelet/pkg/apis/dra-health/v1"
	healthv1alpha1 "k8s.io/kubelet/pkg/apis/dra-health/v1alpha1"
	drav1 "k8s.io/kubelet/pkg/apis/dra/v1"
	drav1beta1 "k8s.io/kubelet/pkg/apis/dra/v1beta1"
)

// callLimit is how long the kubelet gives one call.
const callLimit = 45 * time.Second

// Claim names a ResourceClaim.
type Claim struct{ Namespace, Name, UID string }

// Device is one device that a driver has prepared.
type Device struct {
	Requests []string
	Pool     string
	Name     string
	CDI      []string
}

// Prepare prepares claims, and gives the devices of those that went well by UID. The
// error joins those of the others, or is that of the call.
func (p *Plugin) Prepare(ctx context.Context, claims ...Claim) (map[string][]Device, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	request := &drav1.NodePrepareResourcesRequest{}
	for _, c := range claims {
		request.Claims = append(request.Claims, &drav1.Claim{Namespace: c.Namespace, Name: c.Name, Uid: c.UID})
	}
	var response *drav1.NodePrepareResourcesResponse
	var err error
	if p.dra == drav1.DRAPluginService {
		response, err = drav1.NewDRAPluginClient(p.conn).NodePrepareResources(ctx, request)
	} else {
		response, err = drav1beta1.V1Beta1ClientWrapper{DRAPluginClient: drav1beta1.NewDRAPluginClient(p.conn)}.NodePrepareResources(ctx, request)
	}
	if err != nil {
		return nil, err
	}
	prepared := map[string][]Device{}
	var errs []error
	for _, c := range claims {
		answer, ok := response.Claims[c.UID]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("no answer for claim %s", c.UID))
		case answer.Error != "":
			errs = append(errs, errors.New(answer.Error))
		default:
			prepared[c.UID] = devices(answer.Devices)
		}
	}
	return prepared, errors.Join(errs...)
}

func devices(answered []*drav1.Device) []Device {
	all := make([]Device, len(answered))
	for i, d := range answered {
		all[i] = Device{Requests: d.RequestNames, Pool: d.PoolName, Name: d.DeviceName, CDI: d.CdiDeviceIds}
	}
	return all
}

// Unprepare gives claims back. The error joins those of the claims, or is that of the
// call.
func (p *Plugin) Unprepare(ctx context.Context, claims ...Claim) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	request := &drav1.NodeUnprepareResourcesRequest{}
	for _, c := range claims {
		request.Claims = append(request.Claims, &drav1.Claim{Namespace: c.Namespace, Name: c.Name, Uid: c.UID})
	}
	var response *drav1.NodeUnprepareResourcesResponse
	var err error
	if p.dra == drav1.DRAPluginService {
		response, err = drav1.NewDRAPluginClient(p.conn).NodeUnprepareResources(ctx, request)
	} else {
		response, err = drav1beta1.V1Beta1ClientWrapper{DRAPluginClient: drav1beta1.NewDRAPluginClient(p.conn)}.NodeUnprepareResources(ctx, request)
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range claims {
		answer, ok := response.Claims[c.UID]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("no answer for claim %s", c.UID))
		case answer.Error != "":
			errs = append(errs, errors.New(answer.Error))
		}
	}
	return errors.Join(errs...)
}

// Health is what a driver says of one device.
type Health struct {
	Pool, Device string
	Health       string // HEALTHY, UNHEALTHY, UNKNOWN
	Message      string // v1alpha1 has it too
	Updated      time.Time
	Lease        time.Duration
}

// Watch yields the reports of the health stream, each with its devices by name, until
// ctx or the stream ends.
func (p *Plugin) Watch(ctx context.Context) iter.Seq2[[]Health, error] {
	return func(yield func([]Health, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := p.stream(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		for {
			report, err := stream.Recv()
			switch {
			case errors.Is(err, io.EOF), err != nil && ctx.Err() != nil:
				return
			case err != nil:
				yield(nil, err)
				return
			}
			if !yield(healthOf(report), nil) {
				return
			}
		}
	}
}

func (p *Plugin) stream(ctx context.Context) (healthv1.DRAResourceHealth_NodeWatchResourcesClient, error) {
	request := &healthv1.NodeWatchResourcesRequest{}
	switch p.health {
	case healthv1.DRAResourceHealthService:
		return healthv1.NewDRAResourceHealthClient(p.conn).NodeWatchResources(ctx, request)
	case healthv1alpha1.DRAResourceHealthService:
		return healthv1.V1Alpha1ClientWrapper{Client: healthv1alpha1.NewDRAResourceHealthClient(p.conn)}.NodeWatchResources(ctx, request)
	default:
		return nil, fmt.Errorf("driver %s has no health service that is known: %q", p.Name, p.Services)
	}
}

func healthOf(report *healthv1.NodeWatchResourcesResponse) []Health {
	all := make([]Health, len(report.Devices))
	for i, d := range report.Devices {
		all[i] = Health{
			Pool: d.Device.PoolName, Device: d.Device.DeviceName, Health: d.Health.String(), Message: d.Message,
			Updated: time.Unix(d.LastUpdatedTime, 0), Lease: time.Duration(d.HealthCheckTimeoutSeconds) * time.Second,
		}
	}
	slices.SortFunc(all, func(a, b Health) int { return strings.Compare(a.Device, b.Device) })
	return all
}
