package exporter

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/crypto/bcrypt"
)

// served runs Serve over a listener until the test ends, and gives what it
// returned.
func served(t *testing.T, e *Exporter, l net.Listener, webConfig string) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- Serve(ctx, l, e.Handler(), webConfig, zap.NewNop()) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-result
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

func TestSlowClientIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		served(t, New(healthyNode(1).sources), l, "")
		c := l.dial()
		defer c.Close()
		began := time.Now()
		var writing sync.WaitGroup
		writing.Go(func() {
			fmt.Fprint(c, "GET /metrics HTTP/1.1\r\nHost: x\r\n")
			for i := 0; ; i++ {
				if _, err := fmt.Fprintf(c, "X-%d: a\r\n", i); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		})
		_, _ = io.ReadAll(c)
		if took := time.Since(began); took > headerLimit+time.Second {
			t.Errorf("cut after %s, want %s", took, headerLimit)
		}
		writing.Wait()
	})
}

func TestIdleConnectionIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		served(t, New(healthyNode(1).sources), l, "")
		c := l.dial()
		defer c.Close()
		r := bufio.NewReader(c)
		if code, _ := ask(t, c, r, "/healthz"); code != 200 {
			t.Fatalf("got %d", code)
		}
		began := time.Now()
		_, _ = io.ReadAll(r)
		if took := time.Since(began).Round(time.Second); took != idleLimit {
			t.Errorf("closed after %s, want %s", took, idleLimit)
		}
	})
}

func TestOversizedHeaderIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		served(t, New(healthyNode(1).sources), l, "")
		c := l.dial()
		defer c.Close()
		go func() {
			_, _ = fmt.Fprintf(c, "GET /metrics HTTP/1.1\r\nHost: x\r\nX-Long: %s\r\n\r\n", strings.Repeat("a", 64<<10))
		}()
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("got %s, want 431", answer.Status)
		}
	})
}

func TestShutdownLetsARequestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := healthyNode(1)
		n.sources.Alive = func() error { time.Sleep(3 * time.Second); return nil }
		l := newPipes()
		stop := served(t, New(n.sources), l, "")
		c := l.dial()
		defer c.Close()
		var asking sync.WaitGroup
		asking.Go(func() {
			if code, body := ask(t, c, bufio.NewReader(c), "/healthz"); code != 200 || body != "ok\n" {
				t.Errorf("got %d %q", code, body)
			}
		})
		time.Sleep(time.Second)
		if err := stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
		asking.Wait()
	})
}

func TestShutdownDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := healthyNode(1)
		n.sources.Alive = func() error { time.Sleep(20 * time.Second); return nil }
		l := newPipes()
		stop := served(t, New(n.sources), l, "")
		c := l.dial()
		defer c.Close()
		go func() { _, _ = fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") }()
		time.Sleep(time.Second)
		began := time.Now()
		if err := stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
		// The client is told too, long before its answer would have come.
		_, _ = io.ReadAll(c)
		if took := time.Since(began).Round(time.Second); took != shutdownLimit {
			t.Errorf("took %s, want %s", took, shutdownLimit)
		}
		time.Sleep(time.Minute)
	})
}

func TestCancelledBeforeItBeganServesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l := listen(t)
	if err := Serve(ctx, l, New(healthyNode(1).sources).Handler(), "", zap.NewNop()); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("the listener is still open")
	}
}

func TestBrokenListenerIsAnError(t *testing.T) {
	l := listen(t)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	err := Serve(t.Context(), l, New(healthyNode(1).sources).Handler(), "", zap.NewNop())
	if err == nil || !strings.HasPrefix(err.Error(), "serve metrics: ") {
		t.Errorf("got %v", err)
	}
}

func TestWrongWebConfigurationIsAnErrorBeforeServing(t *testing.T) {
	dir := t.TempDir()
	tests := []struct{ name, config, want string }{
		{"unknown key", "tls_server_conf: {}\n", "not found in type"},
		{"certificate missing", "tls_server_config: {cert_file: nowhere.pem, key_file: nowhere.key}\n", "nowhere.pem"},
		{"password in the clear", "basic_auth_users: {prometheus: secret}\n", "hash"},
		{"no file", "", "no such file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(dir, strings.ReplaceAll(tt.name, " ", "-"))
			if tt.config != "" {
				write(t, file, tt.config)
			}
			l := listen(t)
			err := Serve(t.Context(), l, New(healthyNode(1).sources).Handler(), file, zap.NewNop())
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), file) {
				t.Errorf("got %v, want %q and the file's name", err, tt.want)
			}
			if _, err := l.Accept(); err == nil {
				t.Error("the listener is still open")
			}
		})
	}
}

func TestTLSAndPasswordProtectEverything(t *testing.T) {
	dir := t.TempDir()
	pool := certificate(t, dir)
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "web.yaml")
	write(t, config, fmt.Sprintf(
		"tls_server_config: {cert_file: cert.pem, key_file: key.pem, min_version: TLS13}\nbasic_auth_users: {prometheus: %q}\n", hash))
	l := listen(t)
	stop := served(t, New(healthyNode(1).sources), l, config)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}

	for _, path := range []string{"/", "/metrics", "/healthz", "/readyz"} {
		for password, want := range map[string]int{"": 401, "wrong": 401, "secret": 200} {
			request, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+l.Addr().String()+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if password != "" {
				request.SetBasicAuth("prometheus", password)
			}
			answer, err := client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, answer.Body)
			_ = answer.Body.Close()
			if answer.StatusCode != want {
				t.Errorf("%s with password %q: %d, want %d", path, password, answer.StatusCode, want)
			}
		}
	}
	plain, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+l.Addr().String()+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := http.DefaultClient.Do(plain); err == nil {
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusBadRequest {
			t.Errorf("without TLS: %s, want 400", answer.Status)
		}
	}
	stranger := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: x509.NewCertPool()}}}
	plain.URL.Scheme = "https"
	if answer, err := stranger.Do(plain); err == nil {
		_ = answer.Body.Close()
		t.Error("the certificate is trusted without its authority")
	}
	if err := stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestToolkitsLogIsOurs(t *testing.T) {
	core, lines := observer.New(zapcore.DebugLevel)
	log := newSlog(zap.New(core)).With("a", 1)
	log.Info("TLS is enabled.", "http2", false)
	log.WithGroup("g").Error("Unable to parse configuration", "err", "bad")
	got := lines.All()
	if len(got) != 2 || got[0].Level != zapcore.DebugLevel || got[1].Level != zapcore.ErrorLevel {
		t.Fatalf("got %v", got)
	}
	if fields := got[1].ContextMap(); fields["a"] != int64(1) || fmt.Sprint(fields["g"]) != "map[err:bad]" {
		t.Errorf("fields are %v", fields)
	}
}

// certificate writes a self-signed certificate for 127.0.0.1 and its key, and
// gives a pool that trusts it.
func certificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	write(t, filepath.Join(dir, "cert.pem"), string(cert))
	write(t, filepath.Join(dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return pool
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func ask(t *testing.T, c net.Conn, r *bufio.Reader, path string) (int, string) {
	t.Helper()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
		t.Error(err)
		return 0, ""
	}
	answer, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Error(err)
	}
	return answer.StatusCode, string(body)
}

// pipes is a listener whose connections live in memory, so that their
// deadlines pass in the time of a synctest bubble.
type pipes struct {
	dialled chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func newPipes() *pipes { return &pipes{dialled: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.dialled <- server
	return client
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.dialled:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }
