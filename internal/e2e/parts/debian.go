package parts

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// debian unpacks what is not written in Go, or not worth a build, from packages
// of the distribution. Nothing is installed.
func (r recipe) debian(ctx context.Context) error {
	work, err := os.MkdirTemp("", "gpuvet-e2e-debian-")
	if err != nil {
		return fmt.Errorf("make folder for packages: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	if err := download(ctx, work); err != nil {
		return err
	}
	packages, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil {
		return fmt.Errorf("list packages: %w", err)
	}
	for _, file := range packages {
		if err := command(ctx, work, "dpkg", "-x", file, work); err != nil {
			return err
		}
	}
	for _, wanted := range []struct{ pattern, folder string }{
		{"usr/*bin/runc", "bin"},
		{"usr/lib/cni/*", "cni"},
		{"usr/lib/*/libseccomp.so.2", "lib"},
	} {
		files, err := filepath.Glob(filepath.Join(work, wanted.pattern))
		if err != nil || len(files) == 0 {
			return fmt.Errorf("find %s in the packages: nothing there", wanted.pattern)
		}
		for _, file := range files {
			if err := copyFile(file, filepath.Join(r.dir, wanted.folder, filepath.Base(file))); err != nil {
				return err
			}
		}
	}
	return nil
}

// download fetches the packages into dir. The package lists are refreshed only
// if that is what it takes: it is slow and needs root.
func download(ctx context.Context, dir string) error {
	get := []string{"download", "-o", "APT::Sandbox::User=root", "runc", "containernetworking-plugins", "libseccomp2"}
	if err := command(ctx, dir, "apt-get", get...); err == nil {
		return nil
	}
	if err := command(ctx, dir, "apt-get", "update"); err != nil {
		return err
	}
	return command(ctx, dir, "apt-get", get...)
}

func command(ctx context.Context, dir, name string, args ...string) error {
	run := exec.CommandContext(ctx, name, args...)
	run.Dir = dir
	if out, err := run.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, args[0], err, out)
	}
	return nil
}

func copyFile(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy part: %w", err)
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return fmt.Errorf("copy part: %w", err)
	}
	if _, err := io.Copy(target, source); err != nil {
		target.Close()
		return fmt.Errorf("copy part %s: %w", from, err)
	}
	return target.Close()
}
