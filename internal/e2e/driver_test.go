package e2e

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	healthpb "k8s.io/kubelet/pkg/apis/dra-health/v1"
	drapb "k8s.io/kubelet/pkg/apis/dra/v1"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"gpuvet.dev/internal/e2e/kube"
)

// What the cluster has to do for any driver, with one that is as small as can be: what
// fails here is no fault of ours.

// things is a driver of one device, which is null by another name.
type things struct {
	registration.UnimplementedRegistrationServer
	drapb.UnimplementedDRAPluginServer
	healthpb.UnimplementedDRAResourceHealthServer

	socket string
	health chan healthpb.HealthStatus
	freed  chan string // names of claims
}

const (
	thingsDriver = "things.e2e.example.com"
	thingsSpec   = `{"cdiVersion":"0.6.0","kind":"e2e.example.com/thing","devices":[{"name":"one","containerEdits":{
"env":["THING=one"],"deviceNodes":[{"path":"/dev/thing","type":"c","major":1,"minor":3}]}}]}`
)

// startThings registers the driver with the kubelet. It goes with the test.
func startThings(t *testing.T) *things {
	t.Helper()
	data := filepath.Join(kube.KubeletDir, "plugins", thingsDriver)
	if err := os.MkdirAll(data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(kube.CDIDir, "e2e-thing.json"), []byte(thingsSpec), 0o600); err != nil {
		t.Fatal(err)
	}
	d := &things{
		socket: filepath.Join(data, "dra.sock"),
		health: make(chan healthpb.HealthStatus, 1), freed: make(chan string, 8),
	}
	server := grpc.NewServer()
	registration.RegisterRegistrationServer(server, d)
	drapb.RegisterDRAPluginServer(server, d)
	healthpb.RegisterDRAResourceHealthServer(server, d)
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait)
	t.Cleanup(server.Stop)
	// The kubelet watches the folder of the second one.
	for _, socket := range []string{d.socket, filepath.Join(kube.KubeletDir, "plugins_registry", thingsDriver+"-reg.sock")} {
		listener, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		serving.Go(func() { _ = server.Serve(listener) })
	}
	return d
}

func (d *things) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.DRAPlugin, Name: thingsDriver, Endpoint: d.socket,
		SupportedVersions: []string{drapb.DRAPluginService, healthpb.DRAResourceHealthService},
	}, nil
}

func (d *things) NotifyRegistrationStatus(context.Context, *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	return &registration.RegistrationStatusResponse{}, nil
}

func (d *things) NodePrepareResources(_ context.Context, request *drapb.NodePrepareResourcesRequest) (*drapb.NodePrepareResourcesResponse, error) {
	answer := &drapb.NodePrepareResourcesResponse{Claims: map[string]*drapb.NodePrepareResourceResponse{}}
	for _, claim := range request.Claims {
		answer.Claims[claim.Uid] = &drapb.NodePrepareResourceResponse{Devices: []*drapb.Device{{
			RequestNames: []string{"gpu"}, PoolName: kube.NodeName, DeviceName: "thing-1", CdiDeviceIds: []string{"e2e.example.com/thing=one"},
		}}}
	}
	return answer, nil
}

func (d *things) NodeUnprepareResources(_ context.Context, request *drapb.NodeUnprepareResourcesRequest) (*drapb.NodeUnprepareResourcesResponse, error) {
	answer := &drapb.NodeUnprepareResourcesResponse{Claims: map[string]*drapb.NodeUnprepareResourceResponse{}}
	for _, claim := range request.Claims {
		answer.Claims[claim.Uid] = &drapb.NodeUnprepareResourceResponse{}
		d.freed <- claim.Name
	}
	return answer, nil
}

func (d *things) NodeWatchResources(_ *healthpb.NodeWatchResourcesRequest, stream grpc.ServerStreamingServer[healthpb.NodeWatchResourcesResponse]) error {
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case health := <-d.health:
			err := stream.Send(&healthpb.NodeWatchResourcesResponse{Devices: []*healthpb.DeviceHealth{{
				Device:          &healthpb.DeviceIdentifier{PoolName: kube.NodeName, DeviceName: "thing-1"},
				Health:          health,
				LastUpdatedTime: time.Now().Unix(),
				Message:         "as it is told",
			}}})
			if err != nil {
				return err
			}
		}
	}
}

func TestClaimBringsADeviceIntoAContainer(t *testing.T) {
	d := startThings(t)
	cluster.PublishSlice(t, &resourceapi.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "things-"},
		Spec: resourceapi.ResourceSliceSpec{
			Driver: thingsDriver, NodeName: new(kube.NodeName),
			Pool:    resourceapi.ResourcePool{Name: kube.NodeName, Generation: 1, ResourceSliceCount: 1},
			Devices: []resourceapi.Device{{Name: "thing-1"}},
		},
	})
	class := &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: thingsDriver}}
	class.Spec.Selectors = []resourceapi.DeviceSelector{{CEL: &resourceapi.CELDeviceSelector{Expression: `device.driver == "` + thingsDriver + `"`}}}
	classes := cluster.Admin().ResourceV1().DeviceClasses()
	if _, err := classes.Create(t.Context(), class, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := classes.Delete(context.WithoutCancel(t.Context()), class.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})

	cluster.CreateClaimTemplate(t, "thing", kube.Devices(thingsDriver, 1))
	cluster.CreatePod(t, kube.Pod{Name: "thing", ClaimTemplate: "thing"})
	in := cluster.Inside(t, cluster.AwaitRunning(t, "thing"))
	if in.Env["THING"] != "one" || in.Devices["/dev/thing"] != "1:3" {
		t.Errorf("THING is %q, want one; /dev/thing is %q, want 1:3", in.Env["THING"], in.Devices["/dev/thing"])
	}
	claim := cluster.AwaitAllocated(t, "thing")
	if diff := cmp.Diff([]string{"thing-1"}, kube.Allocated(claim)); diff != "" {
		t.Errorf("devices of the claim (-want +got):\n%s", diff)
	}
	for health, want := range map[healthpb.HealthStatus]corev1.ResourceHealthStatus{
		healthpb.HealthStatus_UNHEALTHY: corev1.ResourceHealthStatusUnhealthy,
		healthpb.HealthStatus_HEALTHY:   corev1.ResourceHealthStatusHealthy,
	} {
		d.health <- health
		if got := cluster.AwaitDeviceHealth(t, "thing", want); len(got) != 1 || got[0].Message == nil || *got[0].Message != "as it is told" {
			t.Errorf("health in the pod's status is %+v, want one device with its message", got)
		}
	}
	if err := cluster.Admin().CoreV1().Pods("default").Delete(t.Context(), "thing", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := <-d.freed; got != claim.Name {
		t.Errorf("claim %s was given back, want %s", got, claim.Name)
	}
	cluster.AwaitPodGone(t, "thing")

	cluster.CreatePod(t, kube.Pod{Name: "plain"})
	in = cluster.Inside(t, cluster.AwaitRunning(t, "plain"))
	if in.Devices["/dev/null"] != "1:3" || in.Devices["/dev/thing"] != "" {
		t.Errorf("devices of a plain container are %v", in.Devices)
	}
}
