package main

import (
	stdcmp "cmp"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"gpuvet.dev/detector"
)

// overridden changes a row in each way.
const overridden = configHead + `policy:
  rows:
  - {reason: ResetRequired, effect: NoExecute, hold: 5s}
  - {reason: LinkFault, clear: quiet, quiet: 30m}
  - {xid: 63, reason: HardwareWarning, action: watch}
  - {xid: 92, ignore: true}
  - {xid: 119, effect: None}
  - {xid: 185, reason: HardwareWarning}
  - {reason: ContainedMemoryError, repeat: {count: 3, within: 10m}}
  repeatOffender: {incidents: 5}
  suspicion: {tenants: 3, namespaceLabel: example.com/team}
`

func TestPolicyIsShown(t *testing.T) {
	none := file(t, "none.yaml", configHead)
	golden(t, "policy-default.txt", output(t, "", "policy", "show", "--config", none))
	golden(t, "policy-default.json", output(t, "", "policy", "show", "--config", none, "-o", "json"))
	if got := output(t, "", "policy", "show", "--config", none, "--changed"); got != unchanged+"\n" {
		t.Errorf("changed by default:\n%s", got)
	}
	parameter := file(t, "parameter.yaml", configHead+"policy: {suspicion: {tenants: 3}}\n")
	if got := output(t, "", "policy", "show", "--config", parameter, "--changed"); !strings.HasPrefix(got, "PARAMETER") || strings.Contains(got, "KEY") {
		t.Errorf("with one parameter alone:\n%s", got)
	}
	path := file(t, "gpuvet.yaml", overridden)
	got := output(t, "", "policy", "show", "--config", path, "--changed")
	golden(t, "policy-changed.txt", strings.ReplaceAll(got, path, "gpuvet.yaml"))
	got = output(t, "", "policy", "check", path)
	golden(t, "policy-check.txt", strings.ReplaceAll(got, path, "gpuvet.yaml"))
	got = output(t, "", "policy", "check", none)
	if want := none + ": good\npolicy: nothing differs from the default\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestShownPolicyHasTheRowsOfEveryReasonAndXid(t *testing.T) {
	var document policyDocument
	text := output(t, "", "policy", "show", "--config", file(t, "gpuvet.yaml", overridden), "-o", "json")
	if err := json.Unmarshal([]byte(text), &document); err != nil {
		t.Fatal(err)
	}
	by := map[string]policyLine{}
	for _, l := range document.Rows {
		by[l.Key] = l
	}
	if p := detector.DefaultPolicy(); len(by) != len(p.Reasons)+len(p.Xids)+len(p.Events)+1 {
		t.Errorf("%d rows", len(by))
	}
	want := policyLine{
		Key: "Xid 109", Xid: 109, Reason: "ResetRequired", Class: "driver", Scope: "gpu", Taint: "reset-required", Effect: "NoExecute",
		Hold: "5s", Clear: "reset", Settle: "30s", Action: "reset-gpu", Changed: true, From: by["ResetRequired"].From, Note: by["Xid 109"].Note,
	}
	if diff := cmp.Diff(want, by["Xid 109"]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestShownParametersSayWhereTheyComeFrom(t *testing.T) {
	path := file(t, "gpuvet.yaml", overridden)
	text := output(t, "", "policy", "show", "--config", path, "-o", "json")
	inYAML := output(t, "", "policy", "show", "--config", path, "-o", "yaml")
	want := []parameterLine{
		{Key: "repeatOffender.incidents", Value: 5.0, Changed: true, From: "file: " + path + " policy.repeatOffender.incidents"},
		{Key: "repeatOffender.within", Value: "720h", From: "default"},
		{Key: "suspicion.tenants", Value: 3.0, Changed: true, From: "file: " + path + " policy.suspicion.tenants"},
		{Key: "suspicion.within", Value: "24h", From: "default"},
		{Key: "suspicion.namespaceLabel", Value: "example.com/team", Changed: true, From: "file: " + path + " policy.suspicion.namespaceLabel"},
	}
	for name, decode := range map[string]func(*policyDocument) error{
		"json": func(d *policyDocument) error { return json.Unmarshal([]byte(text), d) },
		"yaml": func(d *policyDocument) error { return yaml.Unmarshal([]byte(inYAML), d) },
	} {
		var shown policyDocument
		if err := decode(&shown); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, shown.Parameters); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestFaultsOfAPolicyAreToldAllAtOnce(t *testing.T) {
	path := file(t, "gpuvet.yaml", configHead+`policy:
  rows:
  - {reason: ApplicationFault, effect: NoExecute}
  - {xid: 1000, ignore: true}
  - {reason: GPULost, hold: 48h}
  repeatOffender: {incidents: 17}
  suspicion: {tenants: 1}
node: {heartbeat: 1s}
`)
	for _, args := range [][]string{{"policy", "check", path}, {"policy", "show", "--config", path}, {"xid", "79", "--config", path}} {
		refused(t, args,
			path+": policy.rows[0]: class application with effect NoExecute", "allowContradiction: true",
			path+": policy.rows[0]: effect NoExecute with scope workload",
			path+": policy.rows[1].xid: 1000: expected 1 to 999",
			path+": policy.rows[2]: hold 48h0m0s hides the fault for more than a day",
			path+": policy.repeatOffender.incidents: 17: expected 1 to 16, or 0 to keep no GPU",
			path+": policy.suspicion.tenants: 1: expected 2 to 16",
			path+": node.heartbeat")
	}
	startsNothing(t, []string{"--config", path}, "policy.rows[0]")
}

func TestFormOfAPolicyIsStrict(t *testing.T) {
	for text, want := range map[string]string{
		`policy: {row: []}`:                                             "policy.row: unknown key: expected repeatOffender, rows or suspicion",
		`policy: []`:                                                    "policy: []: expected keys repeatOffender, rows or suspicion",
		`policy: {rows: GPULost}`:                                       `policy.rows: "GPULost": expected a list`,
		`policy: {rows: [GPULost]}`:                                     `policy.rows[0]: "GPULost": expected keys action, allowContradiction, class`,
		`policy: {rows: [{reason: GPULost, holds: 1s}]}`:                "policy.rows[0].holds: unknown key: expected action, allowContradiction, class, clear, effect, hold, ignore, quiet, reason, repeat, settle or xid",
		`policy: {rows: [{xid: 79, source: me}]}`:                       "policy.rows[0].source: unknown key",
		`policy: {rows: [{xid: all, ignore: true}]}`:                    `policy.rows[0].xid: "all": expected a number`,
		`policy: {rows: [{xid: 1.5, ignore: true}]}`:                    `policy.rows[0].xid: 1.5: expected a number`,
		`policy: {rows: [{xid: 79, ignore: 1}]}`:                        `policy.rows[0].ignore: 1: expected true or false`,
		`policy: {rows: [{reason: GPULost, hold: 5}]}`:                  `policy.rows[0].hold: 5: expected a duration such as 5m`,
		`policy: {rows: [{xid: 79, ignore: true}, ]}`:                   "",
		`policy: {source: me}`:                                          "policy.source: unknown key",
		`policy: {repeatOffender: {count: 3}}`:                          "policy.repeatOffender.count: unknown key: expected incidents or within",
		`policy: {repeatOffender: 3}`:                                   "policy.repeatOffender: 3: expected keys incidents or within",
		`policy: {repeatOffender: {incidents: many}}`:                   `policy.repeatOffender.incidents: "many": expected a number`,
		`policy: {repeatOffender: {within: 30d}}`:                       `policy.repeatOffender.within: "30d": expected a duration such as 5m`,
		`policy: {suspicion: {tenant: 3}}`:                              "policy.suspicion.tenant: unknown key: expected namespaceLabel, tenants or within",
		`policy: {suspicion: {namespaceLabel: 3}}`:                      "policy.suspicion.namespaceLabel: 3: expected text",
		`policy: {rows: [{reason: LinkUnstable, repeat: {counts: 3}}]}`: "policy.rows[0].repeat.counts: unknown key: expected count or within",
		`policy: {repeatOffender: , suspicion: {}}`:                     "",
		"policy:\n  rows:\n  -\n":                                       "policy.rows[0]: null: expected keys action",
	} {
		path := file(t, "gpuvet.yaml", configHead+text+"\n")
		if want == "" {
			output(t, "", "policy", "check", path)
			continue
		}
		refused(t, []string{"policy", "check", path}, want)
	}
}

func TestPolicyCommandNamesWhatItTakes(t *testing.T) {
	refused(t, []string{"policy", "list"}, `gpuvet: policy: "list": expected check or show`)
	refused(t, []string{"policy", "check"}, "gpuvet: policy check: 0 arguments: expected one file")
	refused(t, []string{"policy", "show", "-o", "text"}, `-o "text"`, "expected table, json or yaml")
	refused(t, []string{"policy", "check", "/nonexistent/gpuvet.yaml"}, "/nonexistent/gpuvet.yaml", "no such file")
	if got := output(t, "", "policy"); !strings.Contains(got, "gpuvet policy [command]") {
		t.Errorf("printed\n%s", got)
	}
}

func TestXidIsExplainedByTheConfiguredPolicy(t *testing.T) {
	path := file(t, "gpuvet.yaml", overridden)
	for code, want := range map[string]string{
		"92":  "the configuration has it ignored",
		"109": "fences the GPU as ResetRequired (NoExecute,",
		"119": "shows the GPU as Degraded (ResetRequired)",
		"63":  "file: " + path + " policy.rows[2]",
	} {
		if got := output(t, "", "xid", code, "--config", path); !strings.Contains(got, want) {
			t.Errorf("Xid %s:\n%s\nwant it to say %q", code, got, want)
		}
	}
}

// The documentation has every key, and the rows as the code has them.
func TestPolicyIsDocumented(t *testing.T) {
	const path = "../../docs/configuration.md"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	documented := keys(reflect.TypeFor[detector.PolicyRow]())
	for _, p := range parameterLines(detector.DefaultPolicy(), false) {
		documented[p.Key] = nil
	}
	for key := range documented {
		if !strings.Contains(string(text), "\n| `"+key+"` |") {
			t.Errorf("%s does not tell of %s", path, key)
		}
	}
	const begin, end = "<!-- from the code; make golden rewrites it -->\n", "<!-- end -->\n"
	before, rest, _ := strings.Cut(string(text), begin)
	rows, after, ok := strings.Cut(rest, end)
	if !ok {
		t.Fatalf("%s has no place for the rows", path)
	}
	var table strings.Builder
	table.WriteString("| reason | class | scope | effect | hold | clear | action | from |\n|---|---|---|---|---|---|---|---|\n")
	for _, l := range policyLines(detector.DefaultPolicy(), false) {
		if l.Xid == 0 {
			key := "`" + l.Key + "`"
			if l.Event != "" && l.Reason != "" {
				key += " `" + string(l.Reason) + "`"
			}
			fmt.Fprintf(&table, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", key, l.Class, l.Scope, l.Effect, stdcmp.Or(l.Hold, l.Repeat),
				strings.TrimSpace(string(l.Clear)+" "+stdcmp.Or(l.Quiet, l.Settle)), l.Action, strings.TrimPrefix(l.From, "default: "))
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(before+begin+table.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(table.String(), rows); diff != "" {
		t.Errorf("%s (-code +documented):\n%s", path, diff)
	}
}

// What the documentation shows as an example is taken.
func TestDocumentedPolicyIsTaken(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := 0
	for block := range strings.SplitSeq(string(text), "```yaml\n") {
		example, _, closed := strings.Cut(block, "```")
		if !closed || !strings.Contains(example, "policy:") {
			continue
		}
		if !strings.Contains(example, "apiVersion") {
			example = configHead + example
		}
		output(t, "", "policy", "check", file(t, "gpuvet.yaml", example))
		examples++
	}
	if examples != 2 {
		t.Errorf("%d examples", examples)
	}
}
