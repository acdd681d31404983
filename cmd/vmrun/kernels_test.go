package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestKernelPackage(t *testing.T) {
	root := &aptRoot{packages: strings.Fields(`
		linux-image-cloud-amd64 linux-image-6.1-cloud-amd64
		linux-image-6.1.0-9-cloud-amd64 linux-image-6.1.0-56-cloud-amd64 linux-image-6.1.0-0.deb11.52-cloud-amd64
		linux-image-6.1.0-57-cloud-amd64-unsigned linux-image-6.1.0-57-cloud-amd64-dbg linux-image-6.1.0-57-amd64
		linux-image-6.12.9+deb12-cloud-amd64 linux-image-6.12.9+deb13-cloud-amd64
		linux-binary-7.3.4+deb13-cloud-amd64 linux-image-7.3.4+deb13-cloud-amd64 linux-base-7.3.5+deb13-cloud-amd64`)}
	for name, want := range map[string]string{
		"6.1":  "linux-image-6.1.0-56-cloud-amd64 6.1",
		"6.12": "linux-image-6.12.9+deb13-cloud-amd64 6.12",
		"7.3":  "linux-binary-7.3.4+deb13-cloud-amd64 7.3",
		latest: "linux-binary-7.3.4+deb13-cloud-amd64 7.3",
	} {
		pkg, series, err := root.kernelPackage(name)
		if got := pkg + " " + series; got != want || err != nil {
			t.Errorf("%s: %s, %v, want %s", name, got, err, want)
		}
	}
	if pkg, _, err := root.kernelPackage("4.19"); err == nil {
		t.Errorf("4.19: %s, want an error", pkg)
	}
}

func TestMirrorFromSources(t *testing.T) {
	const main, security = "http://mirror.example/debian/", "http://mirror.example/debian-security/"
	for name, test := range map[string]struct{ targets, main, security string }{
		"debian": {
			targets: "Debian|bookworm|main|" + main + "\nDebian|bookworm-updates|main|http://other.example/\nDebian|bookworm-security|main|" + security + "\n",
			main:    main, security: security,
		},
		"before the first update": {
			targets: "|trixie|contrib|http://other.example/\n|trixie|main|" + main + "\n|trixie-security|main|" + security + "\n",
			main:    main, security: security,
		},
		"others": {
			targets: "Somebody|bookworm|main|http://other.example/\nUbuntu|noble-security|main|http://other.example/\n",
		},
	} {
		var got mirror
		got.fromSources(test.targets)
		if got.main != test.main || got.security != test.security {
			t.Errorf("%s: %+v, want %s and %s", name, got, test.main, test.security)
		}
	}
}

func TestMirrorOfOneArchive(t *testing.T) {
	m, err := mirror{main: "http://mirror.example/debian/", security: "x"}.complete(t.Context())
	if err != nil || m.main != "http://mirror.example/debian/" || m.security != "x" {
		t.Errorf("complete changed what was said: %+v, %v", m, err)
	}
}

func TestLocalKernels(t *testing.T) {
	dir := t.TempDir()
	if _, err := findKernel(dir, latest); err == nil {
		t.Error("an empty folder has a latest kernel")
	}
	for _, name := range []string{"6.1", "5.10", "5.4", "6.12", "mine"} {
		if err := os.WriteFile(filepath.Join(dir, imagePrefix+name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := localKernels(dir)
	if want := []string{"5.4", "5.10", "6.1", "6.12"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("localKernels: %v, %v, want %v", got, err, want)
	}
	if image, err := findKernel(dir, latest); err != nil || image != filepath.Join(dir, imagePrefix+"6.12") {
		t.Errorf("the latest is %s, %v", image, err)
	}
	f := &fetcher{dir: dir}
	if image := f.local(latest); image != "" {
		t.Errorf("%s passes for the latest of the archive", image)
	}
	if image := f.local("5.10"); image == "" {
		t.Error("5.10 is not seen")
	}
}
