// Package e2e holds the end-to-end tests: the daemon, built from this
// repository, against a real Kubernetes with a real kubelet and container
// runtime.
//
// It is a module of its own so that the requirements of k8s.io/kubernetes never
// reach the module that ships.
//
//	CGO_ENABLED=0 go run -trimpath ./build             # once; minutes when cold
//	CGO_ENABLED=0 go test -trimpath -timeout 20m ./... # needs root, make and gcc
//
// Both flags belong to one set that every build here shares. With any other set
// the Go build cache keeps Kubernetes a second time, which costs ten minutes
// and gigabytes.
//
// The folders: kubernetes, app and containerd are what gets built, parts builds
// it, kube runs a cluster of it in namespaces of its own, daemon runs gpuvet in
// two ways. TestDaemonSet… run the image that ships by the DaemonSet that ships,
// on the one node that has a kubelet, one test at a time. The others run a
// process each, on nodes without a kubelet, many at once: they need fault points,
// which no image has, and tokens that no kubelet would give out. TestDRA… offer GPUs
// to Kubernetes, either way; the others leave that turned off, so that a fault fences
// the node.
package e2e
