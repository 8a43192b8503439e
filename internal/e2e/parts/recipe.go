package parts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// recipe makes one set of parts in dir.
type recipe struct {
	module   string
	dir      string
	version  string
	progress io.Writer
}

// components are the names under which the Kubernetes binary is called.
var components = []string{"etcd", "kube-apiserver", "kube-scheduler", "kube-controller-manager", "kubelet", "kubectl"}

func (r recipe) cook(ctx context.Context) error {
	for _, folder := range []string{"bin", "cni", "lib"} {
		if err := os.MkdirAll(filepath.Join(r.dir, folder), 0o755); err != nil {
			return fmt.Errorf("make folder for parts: %w", err)
		}
	}
	// The packages come first: they are quick, and a machine without apt is told
	// so before it has compiled for ten minutes.
	for _, part := range []struct {
		what string
		make func(context.Context) error
	}{
		{"unpacking runc and CNI plugins from Debian packages", r.debian},
		{"building the test image", r.image},
		{"building containerd", r.containerd},
		{"building Kubernetes " + r.version + " and etcd (about ten minutes on two cores when nothing is cached)", r.kubernetes},
	} {
		if err := step(r.progress, part.what, func() error { return part.make(ctx) }); err != nil {
			return fmt.Errorf("%s: %w", part.what, err)
		}
	}
	return nil
}

func (r recipe) kubernetes(ctx context.Context) error {
	if err := goBuild(ctx, r.module, "-ldflags", r.linkedVersion(), "-o", r.bin("kubernetes"), "./kubernetes"); err != nil {
		return err
	}
	for _, name := range components {
		if err := os.Symlink("kubernetes", r.bin(name)); err != nil {
			return fmt.Errorf("name component: %w", err)
		}
	}
	return nil
}

// linkedVersion sets the version strings. Without them every component takes
// itself for v0.0.0 and they disagree about which features exist.
func (r recipe) linkedVersion() string {
	major, rest, _ := strings.Cut(r.version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	flags := []string{"-s", "-w"}
	for _, set := range []string{
		"gitVersion=v" + r.version, "gitMajor=" + major, "gitMinor=" + minor, "gitCommit=e2e", "gitTreeState=clean",
	} {
		flags = append(flags, "-X k8s.io/component-base/version."+set)
	}
	return strings.Join(flags, " ")
}

func (r recipe) containerd(ctx context.Context) error {
	const commands = "github.com/containerd/containerd/v2/cmd/"
	return goBuild(ctx, filepath.Join(r.module, "containerd"),
		"-ldflags", "-s -w", "-tags", "no_btrfs no_devmapper no_zfs", "-o", r.bin("")+"/",
		commands+"containerd", commands+"containerd-shim-runc-v2", commands+"ctr")
}

func (r recipe) image(ctx context.Context) error {
	program := filepath.Join(r.dir, "app")
	if err := goBuild(ctx, r.module, "-ldflags", "-s -w", "-o", program, "./app"); err != nil {
		return err
	}
	shipped := filepath.Join(r.module, "..", "..")
	err := command(ctx, shipped, "go", "run", "./deploy/image",
		"-o", filepath.Join(r.dir, "app.tar"), "-ref", Image, "-entrypoint", "/app", "/app="+program)
	return errors.Join(err, os.Remove(program))
}

func (r recipe) bin(name string) string { return filepath.Join(r.dir, "bin", name) }

// goBuild is the one place that calls the compiler, so that every build has the
// same flags: a second set would fill the build cache with a second Kubernetes.
func goBuild(ctx context.Context, dir string, args ...string) error {
	build := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath"}, args...)...)
	build.Dir = dir
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build in %s: %w\n%s", dir, err, out)
	}
	return nil
}

// moduleRoot is the folder of this module, at or above the working directory:
// go test and go run both start there, and trimmed builds know no paths.
func moduleRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find module: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		gomod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(gomod), "module gpuvet.dev/internal/e2e\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find module: %s is not inside internal/e2e", start)
		}
	}
}

var kubernetesRequirement = regexp.MustCompile(`(?m)^\s*k8s\.io/kubernetes v(\S+)`)

func kubernetesVersion(module string) (string, error) {
	gomod, err := os.ReadFile(filepath.Join(module, "go.mod"))
	if err != nil {
		return "", fmt.Errorf("read version of Kubernetes: %w", err)
	}
	found := kubernetesRequirement.FindSubmatch(gomod)
	if found == nil {
		return "", fmt.Errorf("read version of Kubernetes: %s/go.mod does not require k8s.io/kubernetes", module)
	}
	return string(found[1]), nil
}
