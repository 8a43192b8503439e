package parts

import (
	"context"
	"io"
	"path/filepath"
)

// Daemon builds gpuvet, with its fault points, from the module that ships, to
// the file at path.
func Daemon(ctx context.Context, path string, progress io.Writer) error {
	shipped, err := shippedRoot()
	if err != nil {
		return err
	}
	return step(progress, "building gpuvet", func() error {
		return goBuild(ctx, shipped, "-tags", "faultpoints", "-o", path, "./cmd/gpuvet")
	})
}

// ProductImage builds the image that ships, under the name that the DaemonSet
// asks for, and returns the path of its archive.
func ProductImage(ctx context.Context, progress io.Writer) (string, error) {
	shipped, err := shippedRoot()
	if err != nil {
		return "", err
	}
	err = step(progress, "building the image of gpuvet", func() error {
		return command(ctx, shipped, "make", "-s", "image")
	})
	return filepath.Join(shipped, "out/gpuvet-image.tar"), err
}

// Library builds the libnvidia-ml.so.1 that plays a scenario, to the file at
// path. It takes a C compiler.
func Library(ctx context.Context, path string, progress io.Writer) error {
	shipped, err := shippedRoot()
	if err != nil {
		return err
	}
	return step(progress, "building the played NVML library", func() error {
		return command(ctx, shipped, "go", "run", "./nvml/fakelib/build", "-o", path)
	})
}

// shippedRoot is the folder of the module that ships.
func shippedRoot() (string, error) {
	module, err := moduleRoot()
	return filepath.Join(module, "..", ".."), err
}
