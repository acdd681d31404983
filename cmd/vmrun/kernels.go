package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	imagePrefix = "vmlinuz-"
	// latest is the newest kernel in the archive or the folder.
	latest = "latest"
)

// defaultKernels are the long-term series that the tests run on, and the newest.
var defaultKernels = []string{"5.10", "6.1", "6.12", "6.18", latest}

var seriesPattern = regexp.MustCompile(`^\d+\.\d+$`)

// findKernel returns the image of a series or of "latest", or a path itself.
func findKernel(dir, name string) (string, error) {
	if strings.Contains(name, "/") {
		_, err := os.Stat(name)
		return name, err
	}
	if name == latest {
		have, err := localKernels(dir)
		if err != nil {
			return "", err
		}
		if len(have) == 0 {
			return "", fmt.Errorf("no kernel in %s: get one with \"vmrun fetch\"", dir)
		}
		name = have[len(have)-1]
	}
	image := filepath.Join(dir, imagePrefix+name)
	if _, err := os.Stat(image); err != nil {
		return "", fmt.Errorf("no kernel %s in %s: get it with \"vmrun fetch %s\"", name, dir, name)
	}
	return image, nil
}

// localKernels lists the series in the folder, oldest first.
func localKernels(dir string) ([]string, error) {
	images, err := filepath.Glob(filepath.Join(dir, imagePrefix+"*"))
	var series []string
	for _, image := range images {
		if s := strings.TrimPrefix(filepath.Base(image), imagePrefix); seriesPattern.MatchString(s) {
			series = append(series, s)
		}
	}
	slices.SortFunc(series, compareVersions)
	return series, err
}

func listCommand(args []string, stdout, stderr io.Writer) error {
	flags, dir := newFlags("list", stderr)
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	series, err := localKernels(*dir)
	for _, s := range series {
		fmt.Fprintln(stdout, s)
	}
	return err
}

// fetcher downloads kernels from the archive into a folder.
type fetcher struct {
	dir    string
	update bool
	apt    *aptRoot // nil until something must be fetched
	mirror mirror
	stderr io.Writer
}

func fetchCommand(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	f := &fetcher{stderr: stderr}
	flags, dir := newFlags("fetch", stderr)
	flags.BoolVar(&f.update, "update", false, "fetch kernels that are there already again")
	flags.StringVar(&f.mirror.main, "mirror", "", "`URL` of Debian's archive, otherwise the one of this machine's apt")
	flags.StringVar(&f.mirror.security, "security-mirror", "", "`URL` of Debian's security archive, likewise")
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	f.dir = *dir
	wanted := flags.Args()
	if len(wanted) == 0 {
		wanted = defaultKernels
	}
	for _, name := range wanted {
		if name != latest && !seriesPattern.MatchString(name) {
			return usageError(fmt.Sprintf("fetch: %q is not a version series such as 5.10", name))
		}
	}
	defer func() { err = errors.Join(err, f.close()) }()
	had := 0
	for _, name := range wanted {
		image, err := f.fetch(ctx, name)
		if err != nil {
			fmt.Fprintf(stderr, "vmrun: fetching %s: %v\n", name, err)
			continue
		}
		fmt.Fprintln(stdout, image)
		had++
	}
	if had == 0 {
		return errors.New("fetching: none of the kernels can be had")
	}
	return nil
}

// fetch returns the image of a series, from the folder or else from the archive.
func (f *fetcher) fetch(ctx context.Context, name string) (string, error) {
	if image := f.local(name); image != "" && !f.update {
		return image, nil
	}
	if f.apt == nil {
		apt, err := newAptRoot(ctx, f.mirror)
		if err != nil {
			return "", err
		}
		f.apt = apt
		if apt.complaints != "" {
			fmt.Fprintf(f.stderr, "vmrun: %s\n", apt.complaints)
		}
	}
	pkg, series, err := f.apt.kernelPackage(name)
	if err != nil {
		return "", err
	}
	deb, err := f.apt.download(ctx, pkg)
	if err != nil {
		return "", err
	}
	defer os.Remove(deb)
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return "", err
	}
	image := filepath.Join(f.dir, imagePrefix+series)
	return image, extractKernel(ctx, deb, image)
}

// local is the image in the folder. Any kernel newer than the default series counts as
// the latest.
func (f *fetcher) local(name string) string {
	image, err := findKernel(f.dir, name)
	if err != nil {
		return ""
	}
	newest := strings.TrimPrefix(filepath.Base(image), imagePrefix)
	named := defaultKernels[len(defaultKernels)-2]
	if name == latest && compareVersions(newest, named) <= 0 {
		return ""
	}
	return image
}

func (f *fetcher) close() error {
	if f.apt == nil {
		return nil
	}
	return f.apt.close()
}

// extractKernel extracts only the vmlinuz from a package.
func extractKernel(ctx context.Context, deb, image string) (err error) {
	var complaints bytes.Buffer
	unpack := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	unpack.Stderr = &complaints
	// The children of dpkg-deb hold its pipes open when only dpkg-deb is killed.
	unpack.WaitDelay = time.Second
	files, err := unpack.StdoutPipe()
	if err != nil {
		return err
	}
	if err := unpack.Start(); err != nil {
		return err
	}
	found, err := saveKernel(tar.NewReader(files), image)
	// The modules after the image are not needed: closing the pipe ends dpkg-deb and its
	// children.
	files.Close()
	if waited := unpack.Wait(); waited != nil && !found {
		err = fmt.Errorf("unpacking %s: %w: %s", filepath.Base(deb), waited, bytes.TrimSpace(complaints.Bytes()))
	}
	return err
}

// saveKernel finds the vmlinuz and saves it atomically.
func saveKernel(files *tar.Reader, image string) (found bool, err error) {
	for {
		header, err := files.Next()
		if err == io.EOF {
			return false, errors.New("the package has no vmlinuz")
		}
		if err != nil {
			return false, err
		}
		if header.Typeflag != tar.TypeReg || !strings.HasPrefix(path.Base(header.Name), "vmlinuz") {
			continue
		}
		f, err := os.CreateTemp(filepath.Dir(image), "."+filepath.Base(image)+"-*")
		if err != nil {
			return true, err
		}
		defer os.Remove(f.Name())
		_, err = io.Copy(f, files)
		if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
			return true, err
		}
		return true, os.Rename(f.Name(), image)
	}
}

var digits = regexp.MustCompile(`\d+|\D+`)

// compareVersions orders versions by their numbers: 5.4 < 5.10.
func compareVersions(a, b string) int {
	return slices.CompareFunc(digits.FindAllString(a, -1), digits.FindAllString(b, -1), func(a, b string) int {
		x, errX := strconv.Atoi(a)
		y, errY := strconv.Atoi(b)
		if errX == nil && errY == nil {
			return x - y
		}
		return strings.Compare(a, b)
	})
}
