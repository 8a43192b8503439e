package parts

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"testing"
)

// containerd follows the same chain on import: index, manifest, config, layer.
func TestImageIsAChainOfBlobsByDigest(t *testing.T) {
	var archive bytes.Buffer
	if err := writeImage(&archive, []byte("program")); err != nil {
		t.Fatal(err)
	}
	files := unpack(t, archive.Bytes())
	var index struct{ Manifests []descriptor }
	read(t, files["index.json"], &index)
	manifest := index.Manifests[0]
	if got := manifest.Annotations["io.containerd.image.name"]; got != Image {
		t.Errorf("image is named %q, want %q", got, Image)
	}
	var links struct {
		Config descriptor
		Layers []descriptor
	}
	read(t, blob(t, files, manifest), &links)
	var config struct {
		Config struct{ Entrypoint []string }
	}
	read(t, blob(t, files, links.Config), &config)
	layer := unpack(t, blob(t, files, links.Layers[0]))
	if got := layer[config.Config.Entrypoint[0][1:]]; string(got) != "program" {
		t.Errorf("entry point holds %q, want the program", got)
	}
}

func TestImageOfEqualProgramsIsEqual(t *testing.T) {
	var a, b bytes.Buffer
	if err := errors.Join(writeImage(&a, []byte("x")), writeImage(&b, []byte("x"))); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("two archives of one program differ")
	}
}

func unpack(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

func blob(t *testing.T, files map[string][]byte, d descriptor) []byte {
	t.Helper()
	content := files[blobPath(d)]
	if digest := fmt.Sprintf("sha256:%x", sha256.Sum256(content)); digest != d.Digest || len(content) != d.Size {
		t.Errorf("blob %s has digest %s and %d bytes, want %d", d.Digest, digest, len(content), d.Size)
	}
	return content
}

func read(t *testing.T, content []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(content, into); err != nil {
		t.Fatal(err)
	}
}
