// Package parts makes what a test cluster is made of: etcd and Kubernetes in
// one binary, containerd, runc, CNI plugins and a container image. The first
// build takes minutes, later ones find the result in the user's cache folder.
package parts

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Set is a finished folder of parts. Nothing in it is ever written again.
type Set struct {
	Dir     string // absolute
	Version string // of Kubernetes, such as 1.37.1
}

// Bin is the path of a program: etcd, kube-apiserver, kube-scheduler,
// kube-controller-manager, kubelet, kubectl, containerd,
// containerd-shim-runc-v2, ctr or runc.
func (s Set) Bin(name string) string { return filepath.Join(s.Dir, "bin", name) }

// CNI is the folder of the network plugins.
func (s Set) CNI() string { return filepath.Join(s.Dir, "cni") }

// Lib is the folder of the shared libraries that runc needs.
func (s Set) Lib() string { return filepath.Join(s.Dir, "lib") }

// Image is an OCI archive that holds the image named by [Image].
func (s Set) Image() string { return filepath.Join(s.Dir, "app.tar") }

// Image is the reference of the one test image. Its program waits for a signal;
// with the argument "fail" it exits 1.
const Image = "e2e.gpuvet.dev/app:1"

// Build returns the parts for the module that holds the working directory. It
// makes them if they are not in the cache yet, and tells progress about every
// step that takes longer than two seconds. Runs at the same moment wait for
// each other.
func Build(ctx context.Context, progress io.Writer) (Set, error) {
	module, err := moduleRoot()
	if err != nil {
		return Set{}, err
	}
	version, err := kubernetesVersion(module)
	if err != nil {
		return Set{}, err
	}
	digest, err := inputs(module)
	if err != nil {
		return Set{}, err
	}
	cache, err := cacheFolder()
	if err != nil {
		return Set{}, err
	}
	set := Set{Dir: filepath.Join(cache, version+"-"+digest), Version: version}
	unlock, err := lock(filepath.Join(cache, "lock"), progress)
	if err != nil {
		return Set{}, err
	}
	defer unlock()
	if _, err := os.Stat(set.Dir); err == nil {
		return set, touch(set.Dir)
	}
	forgetOld(cache)
	partial := set.Dir + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return Set{}, fmt.Errorf("clear unfinished parts: %w", err)
	}
	making := recipe{module: module, dir: partial, version: version, progress: progress}
	if err := making.cook(ctx); err != nil {
		return Set{}, err
	}
	if err := os.Rename(partial, set.Dir); err != nil {
		return Set{}, fmt.Errorf("publish parts: %w", err)
	}
	return set, nil
}

// inputs is a digest over everything that decides what the parts become. The
// recipe itself belongs to it.
func inputs(module string) (string, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version(), runtime.GOARCH)
	for _, pattern := range []string{"go.mod", "go.sum", "kubernetes/*", "app/*", "containerd/*", "parts/*.go", "../../deploy/image/*.go"} {
		files, err := filepath.Glob(filepath.Join(module, pattern))
		if err != nil {
			return "", fmt.Errorf("list %s: %w", pattern, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			content, err := os.ReadFile(file)
			if err != nil {
				return "", fmt.Errorf("read build input: %w", err)
			}
			fmt.Fprintf(sum, "%s %x\n", filepath.Base(file), sha256.Sum256(content))
		}
	}
	return hex.EncodeToString(sum.Sum(nil))[:12], nil
}

func cacheFolder() (string, error) {
	user, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache folder: %w", err)
	}
	cache := filepath.Join(user, "gpuvet", "e2e")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("make cache folder: %w", err)
	}
	return cache, nil
}

// lock keeps every other build out until the returned func is called.
func lock(path string, progress io.Writer) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open build lock: %w", err)
	}
	err = step(progress, "waiting for another build of the parts", func() error {
		for {
			if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
				return err
			}
		}
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
	}
	return func() { file.Close() }, nil
}

// keepFor is how long parts stay in the cache after their last use. A set takes
// a quarter of a gigabyte and every change of the inputs makes a new one.
const keepFor = 7 * 24 * time.Hour

func touch(dir string) error {
	now := time.Now()
	if err := os.Chtimes(dir, now, now); err != nil {
		return fmt.Errorf("mark parts as used: %w", err)
	}
	return nil
}

// forgetOld removes sets that nobody used lately. It is a courtesy: what cannot
// be removed stays.
func forgetOld(cache string) {
	sets, err := os.ReadDir(cache)
	if err != nil {
		return
	}
	old := slices.DeleteFunc(sets, func(entry fs.DirEntry) bool {
		info, err := entry.Info()
		return err != nil || !info.IsDir() || time.Since(info.ModTime()) < keepFor
	})
	for _, entry := range old {
		_ = os.RemoveAll(filepath.Join(cache, entry.Name()))
	}
}
