package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// suites contain the cloud kernels: a release's own series in its security archive, newer
// series in the backports. The cloud flavour has the drivers that a guest needs built in.
var suites = []struct {
	name     string
	security bool
}{
	{"bullseye-security", true},
	{"bookworm-security", true},
	{"trixie-security", true},
	{"trixie-backports", false},
}

// codenames identify Debian's own entries among the machine's apt sources.
var codenames = []string{
	"bullseye", "bookworm", "trixie", "forky", "sid",
	"oldoldstable", "oldstable", "stable", "testing", "unstable",
}

// keyrings verify the archive. The first that exists is used, otherwise apt's trusted
// keys.
var keyrings = []string{
	"/usr/share/keyrings/debian-archive-keyring.gpg",
	"/usr/share/keyrings/debian-archive-keyring.pgp",
}

// kernelName matches a kernel's package: since 6.19 the image is in linux-binary.
var kernelName = regexp.MustCompile(`^linux-(image|binary)-((\d+\.\d+)\.\d+.*)-cloud-amd64$`)

// mirror has the URLs of Debian's two archives.
type mirror struct{ main, security string }

// aptRoot is a separate apt configuration, which leaves the machine's alone.
type aptRoot struct {
	dir string
	// complaints is apt's output about suites that it could not fetch.
	complaints string
	packages   []string
}

func newAptRoot(ctx context.Context, m mirror) (root *aptRoot, err error) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return nil, errors.New("this machine has no apt-get: put a bzImage in the folder by hand")
	}
	if m, err = m.complete(ctx); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "vmrun-apt-")
	if err != nil {
		return nil, err
	}
	root = &aptRoot{dir: dir}
	defer func() {
		if err != nil {
			root.close()
		}
	}()
	if err := root.configure(ctx, m); err != nil {
		return nil, fmt.Errorf("configuring apt: %w", err)
	}
	// A suite that is gone must not hide the others, so what counts is what can be found
	// afterwards.
	if _, err := root.run(ctx, "apt-get", "update"); err != nil {
		root.complaints = err.Error()
	}
	names, err := root.run(ctx, "apt-cache", "pkgnames", "linux-")
	root.packages = strings.Fields(names)
	return root, err
}

func (r *aptRoot) close() error { return os.RemoveAll(r.dir) }

// complete takes what the user did not give from the machine's apt sources.
func (m mirror) complete(ctx context.Context) (mirror, error) {
	if m.main == "" || m.security == "" {
		const format = "$(ORIGIN)|$(RELEASE)|$(COMPONENT)|$(REPO_URI)"
		targets, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", format, "Created-By: Packages").Output()
		if err != nil {
			return m, fmt.Errorf("reading this machine's apt sources: %w", err)
		}
		m.fromSources(string(targets))
	}
	if m.main == "" && m.security == "" {
		return m, errors.New("this machine's apt sources do not name Debian's archive: say -mirror")
	}
	// Mirrors have the two archives side by side.
	if m.security == "" {
		m.security = strings.TrimRight(m.main, "/") + "-security"
	}
	if m.main == "" {
		m.main = strings.TrimSuffix(strings.TrimRight(m.security, "/"), "-security")
	}
	return m, nil
}

// fromSources parses lines "origin|suite|component|address". Before the first "apt-get
// update" the origin is empty.
func (m *mirror) fromSources(targets string) {
	for line := range strings.Lines(targets) {
		fields := strings.Split(strings.TrimSpace(line), "|")
		if len(fields) != 4 || fields[0] != "" && fields[0] != "Debian" || fields[2] != "main" {
			continue
		}
		suite, uri := fields[1], fields[3]
		codename, rest, _ := strings.Cut(suite, "-")
		if !slices.Contains(codenames, codename) {
			continue
		}
		if rest == "security" {
			if m.security == "" {
				m.security = uri
			}
		} else if m.main == "" {
			m.main = uri
		}
	}
}

// configure writes the configuration and the list of sources.
func (r *aptRoot) configure(ctx context.Context, m mirror) error {
	// Proxies and the like are taken from the machine's configuration.
	acquire, err := exec.CommandContext(ctx, "apt-config", "dump", "--no-empty", "Acquire").Output()
	if err != nil {
		return err
	}
	var config bytes.Buffer
	lines := bufio.NewScanner(bytes.NewReader(acquire))
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "Acquire::") {
			fmt.Fprintln(&config, lines.Text())
		}
	}
	fmt.Fprintf(&config, `Dir::State "%[1]s/state";
Dir::State::status "%[1]s/status";
Dir::Cache "%[1]s/cache";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::sourcelist "%[1]s/sources.list";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
Acquire::Languages "none";
APT::Update::Error-Mode "any";
`, r.dir)
	if os.Getuid() == 0 {
		// apt's own user could not write to this folder, which belongs to root.
		fmt.Fprintln(&config, `APT::Sandbox::User "root";`)
	}
	for _, d := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(r.dir, d), 0o755); err != nil {
			return err
		}
	}
	return errors.Join(
		os.WriteFile(filepath.Join(r.dir, "status"), nil, 0o644),
		os.WriteFile(filepath.Join(r.dir, "sources.list"), []byte(sourceList(m)), 0o644),
		os.WriteFile(filepath.Join(r.dir, "apt.conf"), config.Bytes(), 0o644),
	)
}

func sourceList(m mirror) string {
	option := ""
	for _, k := range keyrings {
		if _, err := os.Stat(k); err == nil {
			option = "[signed-by=" + k + "] "
			break
		}
	}
	var b strings.Builder
	for _, s := range suites {
		uri := m.main
		if s.security {
			uri = m.security
		}
		fmt.Fprintf(&b, "deb %s%s %s main\n", option, uri, s.name)
	}
	return b.String()
}

// run runs one of apt's programs and returns its output, or its complaints as an error.
func (r *aptRoot) run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "APT_CONFIG="+filepath.Join(r.dir, "apt.conf"), "LC_ALL=C")
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	output, err := cmd.Output()
	if err != nil {
		text := strings.Join(strings.Split(strings.TrimSpace(complaints.String()), "\n"), "; ")
		return "", fmt.Errorf("%s %s: %w: %s", name, args[0], err, text)
	}
	return string(output), nil
}

// kernelPackage finds the package with the newest image of a series.
func (r *aptRoot) kernelPackage(name string) (pkg, series string, err error) {
	var version string
	for _, p := range r.packages {
		m := kernelName.FindStringSubmatch(p)
		if m == nil || name != latest && name != m[3] {
			continue
		}
		newer := compareVersions(m[2], version)
		if newer > 0 || newer == 0 && m[1] == "binary" {
			pkg, version, series = p, m[2], m[3]
		}
	}
	if pkg != "" {
		return pkg, series, nil
	}
	if r.complaints != "" {
		return "", "", errors.New("none of the suites that could be read has such a cloud kernel")
	}
	return "", "", errors.New("none of the suites has such a cloud kernel")
}

// download returns the path of a package's file.
func (r *aptRoot) download(ctx context.Context, pkg string) (string, error) {
	if _, err := r.run(ctx, "apt-get", "download", pkg); err != nil {
		return "", err
	}
	files, err := filepath.Glob(filepath.Join(r.dir, pkg+"_*.deb"))
	if err == nil && len(files) != 1 {
		err = fmt.Errorf("apt-get download %s left %d files", pkg, len(files))
	}
	if err != nil {
		return "", err
	}
	return files[0], nil
}
