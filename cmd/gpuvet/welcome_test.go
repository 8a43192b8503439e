package main

import (
	"net"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/zap"
)

func welcomed(t *testing.T, o runOptions) string {
	t.Helper()
	web, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	var text strings.Builder
	(&daemon{o: o, log: zap.NewNop(), web: web, gpus: &gpus{}}).welcome(&text)
	_, rest, _ := strings.Cut(text.String(), "\n") // the version
	return regexp.MustCompile(`:\d+/`).ReplaceAllString(rest, ":9410/")
}

func TestDaemonTellsPeopleWhereToLook(t *testing.T) {
	const want = `  GPUs      of this node
  look      gpuvet status --socket /run/other.sock
            http://localhost:9410/
  metrics   http://localhost:9410/metrics
  state     /state
  cluster   nobody: standalone
`
	got := welcomed(t, runOptions{stateDir: "/state", socket: "/run/other.sock", logFormat: "text", standalone: true})
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestUsualSocketNeedNotBeNamed(t *testing.T) {
	got := welcomed(t, runOptions{socket: defaultSocket(), logFormat: "text"})
	if !strings.Contains(got, "gpuvet status\n") || !strings.Contains(got, "nobody: no --kubeconfig, and not in a pod") {
		t.Errorf("got\n%s", got)
	}
}

func TestAddressOfAServerWithTLSSaysSo(t *testing.T) {
	for content, want := range map[string]string{
		"tls_server_config: {cert_file: a, key_file: b}\n": "https://localhost:9410/metrics",
		"basic_auth_users: {}\n":                           "http://localhost:9410/metrics",
	} {
		got := welcomed(t, runOptions{logFormat: "text", webConfig: file(t, "web.yaml", content)})
		if !strings.Contains(got, want) {
			t.Errorf("%s: got\n%swant %s", content, got, want)
		}
	}
}
