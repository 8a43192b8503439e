// Package imports keeps the direction in which the packages of this module
// depend on each other. It holds nothing but this test, which reads the import
// lines of every file, whatever its build tags.
package imports

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "gpuvet.dev"

// reserved are imports that belong to a few folders, with the reason. A path
// or folder stands for the whole tree below it.
var reserved = []struct {
	path    string
	folders []string
	reason  string
}{
	{
		"k8s.io",
		[]string{"dra", "internal/node", "internal/workload", "internal/e2e", "cmd"},
		"watching and deciding go on without an API server, so its types stay in the outputs that talk to it",
	},
	{
		"github.com/NVIDIA",
		[]string{"nvml/worker"},
		"NVML can end or hang its process, so its bindings live in the worker alone",
	},
	{
		"github.com/prometheus",
		[]string{"exporter", "cmd"},
		"metrics are made from snapshots in one place, not registered all over",
	},
	{
		"C",
		[]string{"nvml/worker", "cmd/gpuvet-nvml"},
		"the daemon is a static binary without cgo",
	},
	{
		"github.com/coreos/go-systemd/v22/sdjournal",
		[]string{"detector/kmsg/journal"},
		"the journal library is cgo, behind a build tag",
	},
	{
		module + "/nvml/worker",
		[]string{"nvml/worker", "cmd/gpuvet-nvml"},
		"whoever imports the worker gets its cgo",
	},
	{
		"testing",
		[]string{"nvml/nvmltest"},
		"what tests share is in a package of its own, so that no binary carries it",
	},
}

var leaves = []string{"detector/xid", "detector/kmsg", "nvml", "internal/state", "internal/trail", "internal/faultpoint"}

var outputImports = slices.Concat(leaves, []string{"detector", "internal/budget"})

type layer struct {
	folder  string
	imports []string
	reason  string
}

// layers say which packages of ours a folder may import besides those below
// it. The most specific row counts, and every package needs one.
var layers = []layer{
	{"internal/faultpoint", nil, leaf},
	{"internal/budget", nil, leaf},
	{"internal/state", []string{"internal/faultpoint"}, leaf},
	{"internal/trail", []string{"internal/faultpoint"}, leaf},
	{"detector/xid", nil, leaf},
	{"detector/kmsg", nil, leaf},
	{"nvml", nil, leaf},
	{"detector", []string{"detector/xid", "detector/kmsg", "nvml", "internal/state", "internal/trail", "internal/faultpoint"}, "the core knows sources, state and trail, and nothing of outputs"},
	{"exporter", outputImports, output},
	{"dra", outputImports, output},
	{"internal/node", outputImports, output},
	{"internal/workload", outputImports, output},
	{"internal/events", outputImports, output},
	{"cmd", slices.Concat(leaves, []string{"detector", "detector/kmsg/journal", "exporter", "dra", "dra/pool", "dra/publish", "dra/cdi", "internal/node", "internal/workload", "internal/events", "nvml/fake", "nvml/fakelib", "nvml/client", "nvml/driverroot", "deploy/dra"}), "only packages are wired here"},
	{"cmd/gpuvet-nvml", []string{"nvml", "nvml/wire", "nvml/worker"}, "the worker is small, because it may hang and be left"},
	{"deploy/image", nil, "it packs what was built"},
	{"deploy/dra", nil, "it embeds what ships"},
	{"internal/imports", nil, "it is a test"},
}

const (
	leaf   = "leaves know nothing of the rest, so that each can be understood and tested alone"
	output = "outputs never import each other; declare the method you need and let cmd wire it"
)

// doubles are packages that tests may import besides.
var doubles = []string{"dra/kubelettest", "nvml/fake", "nvml/fakelib", "nvml/fakelib/compile", "nvml/nvmltest"}

func TestImportsFollowTheArchitecture(t *testing.T) {
	root := filepath.Join("..", "..")
	var files int
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return enter(root, name)
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		files++
		parsed, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		file, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if reason := refused(filepath.ToSlash(file), imported); reason != "" {
				t.Errorf("%s imports %s: %s", file, imported, reason)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 20 {
		t.Errorf("only %d files were read from %s", files, root)
	}
}

// enter leaves out what is not built into this module: hidden folders, test
// data and other modules.
func enter(root, folder string) error {
	if folder == root {
		return nil
	}
	name := filepath.Base(folder)
	if strings.HasPrefix(name, ".") || name == "testdata" {
		return filepath.SkipDir
	}
	if _, err := os.Stat(filepath.Join(folder, "go.mod")); err == nil {
		return filepath.SkipDir
	}
	return nil
}

// refused is the reason why a file may not import a path, or empty.
func refused(file, imported string) string {
	folder, test := path.Dir(file), strings.HasSuffix(file, "_test.go")
	for _, r := range reserved {
		if below(imported, r.path) && !belowAny(folder, r.folders) && (!test || r.path != "testing") {
			return r.reason
		}
	}
	ours, found := strings.CutPrefix(imported, module+"/")
	if !found {
		return ""
	}
	var l layer
	for _, row := range layers {
		if below(folder, row.folder) && len(row.folder) > len(l.folder) {
			l = row
		}
	}
	if l.folder == "" {
		return "the folder has no row in the table of layers: decide where it stands"
	}
	if below(ours, l.folder) && (test || !slices.Contains(doubles, ours) || belowAny(folder, doubles)) {
		return ""
	}
	if slices.Contains(l.imports, ours) || test && slices.Contains(doubles, ours) {
		return ""
	}
	return l.reason
}

func below(p, tree string) bool { return p == tree || strings.HasPrefix(p, tree+"/") }

func belowAny(p string, trees []string) bool {
	return slices.ContainsFunc(trees, func(tree string) bool { return below(p, tree) })
}

func TestCheckerRefusesWhatTheArchitectureForbids(t *testing.T) {
	for _, c := range []struct {
		file, imported string
		want           string // the reason begins so; empty: allowed
	}{
		{"detector/fold.go", "k8s.io/api/core/v1", "watching and deciding"},
		{"exporter/metrics_test.go", "k8s.io/api/core/v1", "watching and deciding"},
		{"internal/node/taint.go", "k8s.io/api/core/v1", ""},
		{"detector/policy.go", "sigs.k8s.io/yaml", ""},
		{"internal/nodes/taint.go", "k8s.io/api/core/v1", "watching and deciding"},

		{"nvml/client.go", "github.com/NVIDIA/go-nvml/pkg/nvml", "NVML can end"},
		{"cmd/gpuvet-nvml/main.go", "github.com/NVIDIA/go-nvml/pkg/nvml", "NVML can end"},
		{"nvml/worker/health.go", "github.com/NVIDIA/go-nvml/pkg/nvml", ""},

		{"internal/trail/trail.go", "github.com/prometheus/client_golang/prometheus", "metrics are made"},
		{"exporter/collector.go", "github.com/prometheus/client_golang/prometheus", ""},

		{"nvml/client.go", "C", "the daemon is a static binary"},
		{"nvml/worker/call.go", "C", ""},
		{"detector/kmsg/reader.go", "github.com/coreos/go-systemd/v22/sdjournal", "the journal library"},
		{"detector/kmsg/journal/reader.go", "github.com/coreos/go-systemd/v22/sdjournal", ""},
		{"cmd/gpuvet/run.go", "gpuvet.dev/nvml/worker", "whoever imports the worker"},
		{"cmd/gpuvet-nvml/main.go", "gpuvet.dev/nvml/worker", ""},
		{"cmd/gpuvet-nvml/main.go", "gpuvet.dev/detector", "the worker is small"},
		{"detector/fold.go", "testing", "what tests share"},
		{"detector/fold_test.go", "testing", ""},

		{"detector/xid/parse.go", "gpuvet.dev/detector", "leaves know nothing"},
		{"detector/xid/parse.go", "gpuvet.dev/detector/kmsg", "leaves know nothing"},
		{"internal/state/state.go", "gpuvet.dev/internal/trail", "leaves know nothing"},
		{"internal/state/state.go", "gpuvet.dev/internal/faultpoint", ""},
		{"nvml/sampler.go", "gpuvet.dev/nvml/fake", "leaves know nothing"},
		{"nvml/sampler_test.go", "gpuvet.dev/nvml/fake", ""},
		{"nvml/fake/driver.go", "gpuvet.dev/nvml", ""},
		{"detector/kmsg/journal/reader.go", "gpuvet.dev/detector/kmsg", ""},

		{"detector/detector.go", "gpuvet.dev/internal/state", ""},
		{"detector/detector.go", "gpuvet.dev/internal/node", "the core knows"},
		{"detector/detector.go", "gpuvet.dev/nvml/fake", "the core knows"},
		{"detector/detector_test.go", "gpuvet.dev/nvml/fake", ""},

		{"exporter/http.go", "gpuvet.dev/detector", ""},
		{"exporter/http.go", "gpuvet.dev/dra", "outputs never import each other"},
		{"dra/prepare.go", "gpuvet.dev/internal/node", "outputs never import each other"},
		{"internal/events/spool.go", "gpuvet.dev/internal/workload", "outputs never import each other"},
		{"exporter/http.go", "gpuvet.dev/exporter/dcgm", ""},

		{"cmd/gpuvet/run.go", "gpuvet.dev/dra", ""},
		{"cmd/gpuvet/run.go", "gpuvet.dev/nvml/fake", ""},
		{"cmd/gpuvet/run.go", "gpuvet.dev/nvml/nvmltest", "only packages"},
		{"internal/helper/helper.go", "gpuvet.dev/detector", "the folder has no row"},
		{"internal/helper/helper.go", "fmt", ""},
	} {
		got := refused(c.file, c.imported)
		if (got == "") != (c.want == "") || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s importing %s: refused for %q, want %q", c.file, c.imported, got, c.want)
		}
	}
}

func TestNothingIsLeftOutButWhatIsNotBuilt(t *testing.T) {
	root := t.TempDir()
	for _, folder := range []string{"a/b", "a/testdata/c", ".ci", "a/other"} {
		if err := os.MkdirAll(filepath.Join(root, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "a/other/go.mod"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var entered []string
	if err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := enter(root, name); err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		entered = append(entered, rel)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{".", "a", "a/b"}, entered); diff != "" {
		t.Errorf("entered (-want +got):\n%s", diff)
	}
}
