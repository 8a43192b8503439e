package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
)

// The documents of an image, as in the OCI image specification 1.0.
type (
	descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int               `json:"size"`
		Platform    *platform         `json:"platform,omitempty"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	platform struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
	}
	index struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []descriptor `json:"manifests"`
	}
	manifest struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}
	config struct {
		platform
		Config execution `json:"config"`
		RootFS rootFS    `json:"rootfs"`
	}
	execution struct {
		Env        []string          `json:"Env,omitempty"`
		Entrypoint []string          `json:"Entrypoint"`
		Cmd        []string          `json:"Cmd,omitempty"`
		Labels     map[string]string `json:"Labels,omitempty"`
	}
	rootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	}
)

const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// pack makes the archive of the image. Nothing in it tells of the time or of the
// machine.
func pack(files []file, o options) ([]byte, error) {
	layer, err := archive(withFolders(files))
	if err != nil {
		return nil, fmt.Errorf("pack layer: %w", err)
	}
	packed, err := compress(layer)
	if err != nil {
		return nil, fmt.Errorf("compress layer: %w", err)
	}
	here := platform{Architecture: o.arch, OS: "linux"}
	configuration, err := json.Marshal(config{
		platform: here,
		Config: execution{
			Env: o.env, Entrypoint: strings.Fields(o.entrypoint), Cmd: strings.Fields(o.command), Labels: labels(o.labels),
		},
		RootFS: rootFS{Type: "layers", DiffIDs: []string{digest(layer)}},
	})
	if err != nil {
		return nil, fmt.Errorf("write config: %w", err)
	}
	list, err := json.Marshal(manifest{
		SchemaVersion: 2, MediaType: typeManifest,
		Config: describe(typeConfig, configuration), Layers: []descriptor{describe(typeLayer, packed)},
	})
	if err != nil {
		return nil, fmt.Errorf("write manifest: %w", err)
	}
	named := describe(typeManifest, list)
	named.Platform = &here
	named.Annotations = map[string]string{
		"io.containerd.image.name":          o.ref, // containerd imports it under this name
		"org.opencontainers.image.ref.name": tag(o.ref),
	}
	entry, err := json.Marshal(index{SchemaVersion: 2, MediaType: typeIndex, Manifests: []descriptor{named}})
	if err != nil {
		return nil, fmt.Errorf("write index: %w", err)
	}
	image, err := archive([]file{
		{"/oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{"/index.json", 0o644, entry},
		blob(packed), blob(configuration), blob(list),
	})
	if err != nil {
		return nil, fmt.Errorf("pack image: %w", err)
	}
	return image, nil
}

func labels(values []string) map[string]string {
	all := map[string]string{}
	for _, v := range values {
		name, value, _ := strings.Cut(v, "=")
		all[name] = value
	}
	return all
}

func describe(mediaType string, content []byte) descriptor {
	return descriptor{MediaType: mediaType, Digest: digest(content), Size: len(content)}
}

func digest(content []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(content)) }

func blob(content []byte) file {
	return file{"/blobs/" + strings.Replace(digest(content), ":", "/", 1), 0o644, content}
}

// withFolders puts the folders of sorted files before what is in them. A folder
// has a path that ends in a slash.
func withFolders(files []file) []file {
	var all []file
	for _, f := range files {
		var folders []file
		for folder := path.Dir(f.path); folder != "/"; folder = path.Dir(folder) {
			if entry := folder + "/"; !slices.ContainsFunc(all, func(f file) bool { return f.path == entry }) {
				folders = append(folders, file{entry, 0o755, nil})
			}
		}
		slices.Reverse(folders)
		all = append(append(all, folders...), f)
	}
	return all
}

// archive writes files that belong to root and are from the start of time.
func archive(files []file) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		h := tar.Header{Name: strings.TrimPrefix(f.path, "/"), Mode: f.mode, Size: int64(len(f.content)), Typeflag: tar.TypeReg}
		if strings.HasSuffix(f.path, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func compress(content []byte) ([]byte, error) {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
