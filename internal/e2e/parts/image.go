package parts

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
)

// descriptor names a blob, as in the OCI image specification 1.0.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// writeImage writes the archive of [Image] with one layer, in which program is
// the only file and the entry point. Equal input gives equal bytes.
func writeImage(w io.Writer, program []byte) error {
	layer, err := archive([]entry{{"app", program}})
	if err != nil {
		return fmt.Errorf("write layer: %w", err)
	}
	layerBlob := describe("application/vnd.oci.image.layer.v1.tar", layer)
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       map[string]any{"Entrypoint": []string{"/app"}},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{layerBlob.Digest}},
	})
	if err != nil {
		return fmt.Errorf("write image config: %w", err)
	}
	configBlob := describe("application/vnd.oci.image.config.v1+json", config)
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2,
		"mediaType":     "application/vnd.oci.image.manifest.v1+json",
		"config":        configBlob,
		"layers":        []descriptor{layerBlob},
	})
	if err != nil {
		return fmt.Errorf("write image manifest: %w", err)
	}
	manifestBlob := describe("application/vnd.oci.image.manifest.v1+json", manifest)
	// containerd names the imported image after this annotation of its own.
	manifestBlob.Annotations = map[string]string{"io.containerd.image.name": Image}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []descriptor{manifestBlob}})
	if err != nil {
		return fmt.Errorf("write image index: %w", err)
	}
	image, err := archive([]entry{
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{"index.json", index},
		{blobPath(layerBlob), layer},
		{blobPath(configBlob), config},
		{blobPath(manifestBlob), manifest},
	})
	if err != nil {
		return fmt.Errorf("write image archive: %w", err)
	}
	_, err = w.Write(image)
	return err
}

func describe(mediaType string, blob []byte) descriptor {
	return descriptor{MediaType: mediaType, Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(blob)), Size: len(blob)}
}

func blobPath(d descriptor) string {
	return "blobs/sha256/" + d.Digest[len("sha256:"):]
}

type entry struct {
	name    string
	content []byte
}

func archive(entries []entry) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		if err := w.WriteHeader(&tar.Header{Name: e.name, Mode: 0o755, Size: int64(len(e.content))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
