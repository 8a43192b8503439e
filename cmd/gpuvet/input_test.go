package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gpuvet.dev/dra"
	"gpuvet.dev/internal/state"
)

const configHead = "apiVersion: gpuvet.dev/v1alpha1\nkind: Config\n"

// refused runs a command whose input is bad, and wants its error to hold each
// text; exit code 2, nothing on standard output.
func refused(t *testing.T, args []string, want ...string) {
	t.Helper()
	o := gpuvet(t, "", args...)
	if o.code != exitInput {
		t.Errorf("gpuvet %q: code %d, want %d; error output:\n%s", args, o.code, exitInput, o.err)
	}
	if o.out != "" {
		t.Errorf("gpuvet %q: printed %q", args, o.out)
	}
	for _, text := range want {
		if !strings.Contains(o.err, text) {
			t.Errorf("gpuvet %q: error is\n%s\nwant it to say %q", args, o.err, text)
		}
	}
	for _, noise := range []string{"json:", "Go struct", "unmarshal", "panic", "error converting", "%!"} {
		if strings.Contains(o.err, noise) {
			t.Errorf("gpuvet %q: error has %q in it:\n%s", args, noise, o.err)
		}
	}
}

func TestBadArgumentIsNamedWithWhatWasExpected(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"unknown flag":          {[]string{"run", "--bogus"}, []string{"--bogus", "gpuvet run --help"}},
		"unknown command":       {[]string{"bogus"}, []string{`"bogus"`, "expected clear, deviceclasses, ignore, parse, pause, policy, replay, resume, run, slices, status, unignore, version or xid"}},
		"extra argument":        {[]string{"run", "extra"}, []string{`gpuvet: run: "extra": expected no argument`}},
		"extra status argument": {[]string{"status", "3"}, []string{`"3"`, "expected no argument"}},
		"extra file":            {[]string{"parse", "a", "b"}, []string{`"b"`, "no second file"}},
		"output of status":      {[]string{"status", "-o", "xml"}, []string{`-o "xml"`, "expected table, json or yaml"}},
		"output of parse":       {[]string{"parse", "-o", "yaml"}, []string{`-o "yaml"`, "expected table or json"}},
		"output of replay":      {[]string{"replay", "-o", "yaml", "-"}, []string{`-o "yaml"`, "expected table or json"}},
		"flag without value":    {[]string{"parse", "-o"}, []string{"needs an argument", "gpuvet parse --help"}},
		"no number":             {[]string{"xid", "abc"}, []string{`"abc"`, "expected a number such as 79"}},
		"unknown Xid":           {[]string{"xid", "9999"}, []string{"9999", "expected 1 to 176"}},
		"Xid zero":              {[]string{"xid", "0"}, []string{`"0"`, "expected a number"}},
		"log is missing":        {[]string{"parse", missing}, []string{missing, "no such file", "expected a saved kernel log"}},
		"log is a folder":       {[]string{"parse", t.TempDir()}, []string{"is a folder", "expected a saved kernel log"}},
		"replay nothing":        {[]string{"replay"}, []string{"0 arguments", "expected one file or folder"}},
		"replay two":            {[]string{"replay", "a", "b"}, []string{"2 arguments", "expected one file or folder"}},
		"replay missing":        {[]string{"replay", missing}, []string{missing, "no such file", "expected"}},
		"replay empty folder":   {[]string{"replay", t.TempDir()}, []string{"no trail", "00000001.jsonl"}},
		"clear nothing":         {[]string{"clear"}, []string{"gpuvet: clear: 0 arguments: expected a GPU"}},
		"clear too much":        {[]string{"clear", "0", "GPULost", "x"}, []string{"3 arguments", "expected a GPU"}},
		"long socket":           {[]string{"status", "--socket", "/" + strings.Repeat("s", 107)}, []string{"108 bytes long", "at most 107"}},
	} {
		t.Run(name, func(t *testing.T) { refused(t, c.args, c.want...) })
	}
}

func TestBadInputOfTheDaemonStartsNothing(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	scenario := file(t, "good.yaml", "gpus: {count: 1, profile: h100}\n")
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"log format":      {[]string{"--log-format", "xml"}, []string{`--log-format "xml"`, "auto, text or json"}},
		"address":         {[]string{"--listen", "9410"}, []string{`--listen "9410"`, "such as :9410"}},
		"port":            {[]string{"--listen", ":99999"}, []string{`--listen ":99999"`, "such as :9410"}},
		"node name":       {[]string{"--node-name", "Bad_Name!"}, []string{"--node-name", "Bad_Name!", "expected the name of a node"}},
		"state folder":    {[]string{"--state-dir", ""}, []string{"--state-dir", "expected a folder"}},
		"socket":          {[]string{"--socket", ""}, []string{"--socket", "expected a path"}},
		"config missing":  {[]string{"--config", missing}, []string{"--config", missing, "no such file"}},
		"two minds":       {[]string{"--kubeconfig", missing}, []string{"--standalone and --kubeconfig", missing, "expected one"}},
		"kubeconfig":      {[]string{"--standalone=false", "--kubeconfig", missing}, []string{"--kubeconfig", missing, "no such file"}},
		"scenario gone":   {[]string{"--fake-nvml", missing}, []string{"--fake-nvml", missing, "no such file"}},
		"web config gone": {[]string{"--web-config", missing}, []string{"--web-config", missing, "no such file"}},
		"web config key": {
			[]string{"--web-config", file(t, "web.yaml", "tls_servr_config: {}\n")},
			[]string{"--web-config", "web.yaml", "line 1", "tls_servr_config: unknown key"},
		},
		"web config certificate": {
			[]string{"--web-config", file(t, "web.yaml", "tls_server_config: {cert_file: none.pem, key_file: none.key}\n")},
			[]string{"--web-config", "none.pem"},
		},
		"scenario": {
			[]string{"--fake-nvml", file(t, "sc.yaml", "gpus: {count: 2, profile: h1}\ntimline: []\n")},
			[]string{"sc.yaml", "timline", "unknown key", `gpus.profile: "h1"`, "expected a100, b200, h100, h200 or l40s"},
		},
		"test switch without fake":   {[]string{"--accept-user-kernel-lines"}, []string{"--accept-user-kernel-lines", "expected --fake-nvml"}},
		"kubeconfig that is no such": {[]string{"--standalone=false", "--kubeconfig", scenario}, []string{"--kubeconfig", scenario}},
	} {
		t.Run(name, func(t *testing.T) { startsNothing(t, c.args, c.want...) })
	}
}

// startsNothing wants a daemon refused before it makes or opens anything.
func startsNothing(t *testing.T, args []string, want ...string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	// A port in use shows that none was opened: the error would be another.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	all := append(daemonArgs(t, dir, "--listen", taken.Addr().String()), args...)
	refused(t, all, want...)
	if _, err := os.Stat(dir); err == nil {
		t.Error("the state folder was made")
	}
}

func TestBadConfigIsNamedByFileKeyAndValue(t *testing.T) {
	for name, c := range map[string]struct {
		config string
		want   []string
	}{
		"empty":              {"", []string{`apiVersion: ""`, "expected gpuvet.dev/v1alpha1", `kind: ""`, "expected Config"}},
		"other version":      {"apiVersion: v1\nkind: Config\n", []string{`apiVersion: "v1": expected gpuvet.dev/v1alpha1`}},
		"other kind":         {"apiVersion: gpuvet.dev/v1alpha1\nkind: Policy\n", []string{`kind: "Policy": expected Config`}},
		"no YAML":            {configHead + "node: {taint: auto\n", []string{"line 3"}},
		"not a map":          {"- a\n", []string{`["a"]`, "expected keys apiVersion, dra, kind, node, policy or trail"}},
		"key twice":          {configHead + "kind: Config\n", []string{"line 3", `"kind" already set`}},
		"two documents":      {configHead + "---\n" + configHead, []string{"line 3", "second document", "expected one"}},
		"unknown section":    {configHead + "nodes: {}\n", []string{"nodes: unknown key", "expected apiVersion, dra, kind, node, policy or trail"}},
		"other case":         {configHead + "Node: {}\n", []string{"Node: unknown key"}},
		"unknown key":        {configHead + "node: {tiant: auto}\n", []string{"node.tiant: unknown key", "expected heartbeat, taint or taintWhenUnhealthy"}},
		"hidden key":         {configHead + "node: {DeviceFencing: true}\n", []string{"node.DeviceFencing: unknown key"}},
		"section is text":    {configHead + "node: always\n", []string{`node: "always": expected keys heartbeat, taint`}},
		"wrong type":         {configHead + "node: {taint: [auto]}\n", []string{`node.taint: ["auto"]: expected auto, always or never`}},
		"bad value":          {configHead + "node: {taint: sometimes}\n", []string{`node.taint`, `"sometimes"`, "expected auto, always or never"}},
		"duration is number": {configHead + "node: {heartbeat: 5}\n", []string{"node.heartbeat: 5: expected a duration such as 5m"}},
		"duration is word":   {configHead + "node: {heartbeat: five}\n", []string{`node.heartbeat: "five": expected a duration such as 5m`}},
		"too short":          {configHead + "node: {heartbeat: 1s}\n", []string{"node.heartbeat", "1s", "expected 10s to 1h"}},
		"threshold":          {configHead + "node: {taintWhenUnhealthy: 0}\n", []string{"node.taintWhenUnhealthy: 0: expected all or a number from 1"}},
		"driver on or off":   {configHead + "dra: {enabled: maybe}\n", []string{`dra.enabled: "maybe": expected auto, true or false`}},
		"CDI mode":           {configHead + "dra: {cdi: nvcdi}\n", []string{`dra.cdi: "nvcdi": expected delegate, minimal or none`}},
		"CDI kind":           {configHead + "dra: {cdiKind: gpu}\n", []string{`dra.cdiKind: "gpu": expected VENDOR/CLASS`}},
		"level of the check": {configHead + "dra: {preflight: quick}\n", []string{`dra.preflight: "quick": expected state or none`}},
		"driver's key":       {configHead + "dra: {preFlight: none}\n", []string{"dra.preFlight: unknown key", "expected cdi, cdiKind, enabled or preflight"}},
		"retention number":   {configHead + "trail: {retention: 720}\n", []string{"trail.retention: 720: expected a duration"}},
		"retention negative": {configHead + "trail: {retention: -1h}\n", []string{`trail.retention: "-1h"`, "more than zero"}},
		"size unit":          {configHead + "trail: {maxBytes: 256MB}\n", []string{`trail.maxBytes: "256MB": expected a number of bytes such as 256Mi, at most 1Ti`}},
		"size too large":     {configHead + "trail: {maxBytes: 2Ti}\n", []string{`trail.maxBytes: "2Ti"`}},
		"size negative":      {configHead + "trail: {maxBytes: -1}\n", []string{"trail.maxBytes: -1"}},
		"all at once":        {configHead + "node: {heartbeat: x}\ntrail: {retention: 1, maxByte: 2}\n", []string{"node.heartbeat", "trail.retention", "trail.maxByte: unknown key"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := file(t, "gpuvet.yaml", c.config)
			startsNothing(t, []string{"--config", path}, append(c.want, path+": ")...)
		})
	}
}

func TestGoodConfigIsTaken(t *testing.T) {
	path := file(t, "gpuvet.yaml", `# all of it
---
apiVersion: gpuvet.dev/v1alpha1
kind: Config
node:
  taint: never
  taintWhenUnhealthy: 3
  heartbeat: 1m
dra: {enabled: true, cdi: minimal, cdiKind: management.nvidia.com/gpu, preflight: none}
trail: {retention: 24h, maxBytes: 64Mi}
`)
	c, err := loadConfig(path, true)
	if err != nil {
		t.Fatal(err)
	}
	if c.Node.Taint != "never" || c.Node.TaintWhenUnhealthy != 3 || c.Node.Heartbeat.Minutes() != 1 {
		t.Errorf("node is %+v", c.Node)
	}
	if want := (dra.Config{Enabled: dra.EnabledTrue, CDI: "minimal", CDIKind: "management.nvidia.com/gpu", Preflight: "none"}); c.DRA != want {
		t.Errorf("dra is %+v", c.DRA)
	}
	if o := c.Trail.options("b"); o.MaxBytes != 64<<20 || o.Retention.Hours() != 24 || o.Boot != "b" {
		t.Errorf("trail is %+v", o)
	}
}

func TestEmptySectionKeepsTheDefaults(t *testing.T) {
	c, err := loadConfig(file(t, "gpuvet.yaml", configHead+"node:\n  # taint: never\ndra: {enabled: }\ntrail: {retention: }\n"), true)
	if err != nil {
		t.Fatal(err)
	}
	if c.Node.Taint != "auto" || c.Node.Heartbeat.Minutes() != 5 || c.Trail.Retention != 0 || c.DRA != dra.DefaultConfig() {
		t.Errorf("config is %+v", c)
	}
}

func TestDefaultConfigNeedNotExist(t *testing.T) {
	if _, err := loadConfig(filepath.Join(t.TempDir(), "none.yaml"), false); err != nil {
		t.Error(err)
	}
}

func TestTestSwitchIsRefusedBesideRealGPUs(t *testing.T) {
	devices := filepath.Dir(file(t, "nvidia0", ""))
	err := mayAcceptUserLines("scenario.yaml", filepath.Join(devices, "nvidia*"))
	if err == nil || !strings.Contains(err.Error(), "nvidia0 exists") {
		t.Errorf("error is %v", err)
	}
	if err := mayAcceptUserLines("scenario.yaml", filepath.Join(devices, "none*")); err != nil {
		t.Error(err)
	}
}

func TestStateOfANewerGpuvetIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	const newer = "gpuvet-state 2 something else\n{}"
	if err := os.WriteFile(path, []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, daemonArgs(t, dir), path, "newer gpuvet", "version 2", "reads up to 1")
	if left, _ := os.ReadFile(path); string(left) != newer {
		t.Errorf("the file is now %q", left)
	}
}

func TestTrailOfANewerGpuvetIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	first := startScenario(t, dir, "gpus: {count: 1, profile: h100}\n")
	first.ready()
	first.end()
	path := filepath.Join(dir, "trail", "00000001.jsonl")
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.Replace(string(old), `{"gpuvet-trail":1,`, `{"gpuvet-trail":2,`, 1)
	if err := os.WriteFile(path, []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, daemonArgs(t, dir, "--fake-nvml", file(t, "scenario.yaml", healthy)), path, "newer gpuvet")
	refused(t, []string{"replay", filepath.Dir(path)}, path, "newer gpuvet")
	refused(t, []string{"replay", path}, path, "newer gpuvet")
	if left, _ := os.ReadFile(path); string(left) != newer {
		t.Error("the file was changed")
	}
}

// folder opens the state of a daemon that has ended.
func folder(t *testing.T, dir string) *state.Dir {
	t.Helper()
	d, err := state.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestStateOfScriptedGPUsIsNotTakenForRealOnes(t *testing.T) {
	dir := t.TempDir()
	lost(t, dir)
	refused(t, daemonArgs(t, dir), "--state-dir", dir, "scripted GPUs", "expected another folder")

	dir = t.TempDir()
	real := startDaemon(t, dir)
	real.ready()
	real.end()
	refused(t, daemonArgs(t, dir, "--fake-nvml", file(t, "scenario.yaml", healthy)), "--state-dir", dir, "real GPUs", "expected another folder")
}

func TestPackedLogIsRefused(t *testing.T) {
	packed := file(t, "syslog.2.gz", "\x1f\x8b\x08\x00\x00\x00\x00\x00")
	refused(t, []string{"parse", packed}, packed, "packed with gzip", "expected text")
	refused(t, []string{"replay", packed}, packed, "packed with gzip", "expected text")
}
