//go:build cgo

package worker

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/dl"
	binding "github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpuvet.dev/nvml/wire"
)

// library is the driver's NVML library as it is installed here.
type library struct {
	binding.Interface
	file  *dl.DynamicLibrary
	found map[string]bool // whether it has a function, as far as was asked
}

// openLibrary loads the library and has NVML begin. After an error nothing of
// it may be called.
func openLibrary(path, sysfs string) (*library, error) {
	// Its own handle to the file, because the binding looks symbols up only after
	// Init, and says nothing of why a file cannot be loaded. Loading twice counts.
	file := dl.New(path, dl.RTLD_LAZY|dl.RTLD_GLOBAL)
	if err := file.Open(); err != nil {
		return nil, &callError{call: fmt.Sprintf("load library: %v", err), kind: wire.KindNoDriver}
	}
	l := &library{Interface: binding.New(binding.WithLibraryPath(path)), file: file, found: map[string]bool{}}
	if !l.has("nvmlInit_v2") {
		return nil, &callError{call: path + " is no NVML library: nvmlInit_v2 is missing", kind: wire.KindNoDriver}
	}
	// nvmlInit_v2 initialises no GPU; looking up its handle does (since NVML 5).
	call, code := "nvmlInit_v2", l.Init()
	if (code == binding.ERROR_GPU_NOT_FOUND || code == binding.ERROR_NOT_FOUND) && l.has("nvmlInitWithFlags") {
		// A driver without a GPU is well, and has an empty list.
		call, code = "nvmlInitWithFlags", l.InitWithFlags(binding.INIT_FLAG_NO_GPUS)
	}
	switch code {
	case binding.SUCCESS:
		return l, nil
	case binding.ERROR_DRIVER_NOT_LOADED, binding.ERROR_LIBRARY_NOT_FOUND:
		return nil, &callError{call: call, code: code, kind: wire.KindNoDriver}
	case binding.ERROR_LIB_RM_VERSION_MISMATCH:
		return nil, mismatch(call, sysfs)
	}
	return nil, failed(call, code)
}

// has reports whether the library has a function.
func (l *library) has(function string) bool {
	found, asked := l.found[function]
	if !asked {
		found = l.file.Lookup(function) == nil
		l.found[function] = found
	}
	return found
}

// mismatch says by which versions library and driver differ, as far as known:
// the library's real file name ends in its version.
func mismatch(call, sysfs string) error {
	library, driver := mappedVersion(), driverVersion(sysfs)
	if library == "" {
		library = "of another version"
	}
	if driver == "" {
		driver = "of another version"
	}
	text := fmt.Sprintf("%s: the library is %s and the loaded driver is %s", call, library, driver)
	return &callError{call: text, kind: wire.KindRenewed}
}

// mappedVersion is the version in the name of the library that this process has
// loaded, "570.195.03" for libnvidia-ml.so.570.195.03; empty if it has none.
func mappedVersion() string {
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return ""
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		_, version, ok := strings.Cut(filepath.Base(lines.Text()), "libnvidia-ml.so.")
		if ok && strings.Contains(version, ".") {
			return version
		}
	}
	return ""
}
