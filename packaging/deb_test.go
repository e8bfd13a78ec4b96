package packaging

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// built is the package of this checkout under two versions, made once.
var built = sync.OnceValues(func() (debs [2]string, err error) {
	dir, err := os.MkdirTemp("", "stellar-deb-")
	if err != nil {
		return debs, err
	}
	leftovers = append(leftovers, dir)
	if debs[0], err = build("..", dir, "v0.1.0", nil); err != nil {
		return debs, err
	}
	debs[1], err = pack("..", dir, "v0.2.0", nil)
	return debs, err
})

var leftovers []string

func TestMain(m *testing.M) {
	code := m.Run()
	for _, dir := range leftovers {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// buildEpoch is the time of all files of packages made here.
const buildEpoch = "1700000000"

// build makes programs and package as `make deb` does and returns the package.
func build(checkout, out, version string, env []string) (string, error) {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return "", err
	}
	// The stamp of the checkout's commit would be all that differs outside one.
	_, err := run(checkout, append(env, "CGO_ENABLED=0"), "go", "build", "-tags=hashicorpmetrics", "-trimpath", "-buildvcs=false",
		"-ldflags=-s -w -X main.version="+version, "-o", out+"/", "./cmd/...")
	if err != nil {
		return "", err
	}
	return pack(checkout, out, version, env)
}

// pack makes the package of the programs in dir, there.
func pack(checkout, dir, version string, env []string) (string, error) {
	return run(checkout, append(env, "VERSION="+version, "SOURCE_DATE_EPOCH="+buildEpoch), "./packaging/deb.sh", dir, dir)
}

func run(dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var said bytes.Buffer
	cmd.Stderr = &said
	text, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", cmd, err, said.Bytes())
	}
	return strings.TrimSpace(string(text)), nil
}

func debs(t *testing.T) [2]string {
	t.Helper()
	d, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestLintian: no finding, also no pedantic one, but the overridden.
func TestLintian(t *testing.T) {
	out, err := exec.Command("lintian", "--allow-root", "--tag-display-limit", "0", "--display-info", "--pedantic", debs(t)[0]).CombinedOutput()
	if err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("lintian: %v\n%s", err, out)
	}
}

// TestVersion: what dpkg thinks of the order of our versions.
func TestVersion(t *testing.T) {
	t.Parallel()
	deb, err := os.ReadFile("deb.sh")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(deb), "debian_version() {")
	body, _, ok2 := strings.Cut(rest, "\n}\n")
	if !ok || !ok2 {
		t.Fatal("deb.sh has no debian_version")
	}
	var last string
	for _, v := range []string{"368b609", "v1.2.3-rc.1", "v1.2.3", "v1.2.3-5-gabc1234", "v1.2.3-14-gabc1234", "v1.2.4-rc.1", "v1.2.4-rc.1-3-gabc", "v1.2.4", "v1.2.4-dirty", "v1.10.0"} {
		out, err := exec.Command("bash", "-c", "SOURCE_DATE_EPOCH="+buildEpoch+"; debian_version() {"+body+"\n}; debian_version "+v).Output()
		if err != nil {
			t.Fatalf("%s: %v", v, err)
		}
		got := strings.TrimSpace(string(out))
		if last != "" {
			if err := exec.Command("dpkg", "--compare-versions", last, "lt", got).Run(); err != nil {
				t.Errorf("%s, of %s, is not later than %s", got, v, last)
			}
		}
		last = got
	}
}

// TestReproducible: the programs and the package are the same bytes when they are
// built in another directory, at another time, by a compiler that remembers
// nothing.
func TestReproducible(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(dir, "another", "and", "longer", "place")
	if err := os.MkdirAll(other, 0o755); err != nil {
		t.Fatal(err)
	}
	copies := "git ls-files -z --cached --others --exclude-standard | tar --null -T - -c | tar -x -C " + other
	if _, err := run("..", nil, "bash", "-o", "pipefail", "-c", copies); err != nil {
		t.Fatal(err)
	}
	first := debs(t)[0]
	start := time.Now()
	second, err := build(other, filepath.Join(dir, "out"), "v0.1.0", []string{"GOCACHE=" + filepath.Join(dir, "cache")})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("built from nothing in %s", time.Since(start).Round(time.Second))
	for _, name := range []string{"stellar", "stellar-runc", "stellar-cni", "stellar-cni-ipam", filepath.Base(first)} {
		a, err1 := os.ReadFile(filepath.Join(filepath.Dir(first), name))
		b, err2 := os.ReadFile(filepath.Join(filepath.Dir(second), name))
		if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs: %d and %d bytes (%v, %v)", name, len(a), len(b), err1, err2)
		}
	}
}
