package main

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"keymount/images/internal/program"
	"keymount/images/internal/source"
)

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The Dockerfile, the Makefile and this program must build the same: whoever changes one is told of the others.
func TestOneWayToCompile(t *testing.T) {
	flags := func(s program.Stamp) string {
		f := program.Flags(s)
		return "go build " + strings.Join(f[:2], " ") + ` -ldflags "` + f[3] + `"`
	}
	docker := strings.Join(strings.Fields(strings.ReplaceAll(read(t, "../Dockerfile"), "\\\n", " ")), " ")
	for _, want := range []string{
		"CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH " + flags(program.Stamp{Version: "$VERSION", Commit: "$REVISION", Date: "$CREATED"}),
		"FROM scratch",
	} {
		if !strings.Contains(docker, want) {
			t.Errorf("the Dockerfile lacks %q", want)
		}
	}
	plain := flags(program.Stamp{Version: "$(VERSION)", Commit: "$(GIT_COMMIT)", Date: "$(BUILD_DATE)"})
	_, ldflags, _ := strings.Cut(plain, "-ldflags ")
	makefile := read(t, "../Makefile")
	for _, want := range []string{"CGO_ENABLED=0", "-trimpath -buildvcs=false", "$(PLAIN) go build -ldflags " + ldflags} {
		if !strings.Contains(makefile, want) {
			t.Errorf("the Makefile lacks %q", want)
		}
	}
}

func TestDockerfileHasTheModulesGo(t *testing.T) {
	wants := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "../go.mod"))
	has := regexp.MustCompile(`(?m)^FROM .*golang:(\d+\.\d+)\.\d+-`).FindStringSubmatch(read(t, "../Dockerfile"))
	if wants == nil || has == nil || wants[1] != has[1] {
		t.Errorf("the Dockerfile's golang tag is %q and go.mod's release %q", has, wants)
	}
}

// A package outside the known parts would be missed by the look for uncommitted changes, and by Docker.
func TestKnownPartsHoldAllThatIsCompiled(t *testing.T) {
	out, err := exec.Command("go", "-C", "..", "list", "-deps", "-f", "{{.ImportPath}}", "./cmd/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	parts := source.Parts()
	ours := 0
	for _, path := range strings.Fields(string(out)) {
		below, ok := strings.CutPrefix(path, "keymount/")
		if !ok {
			continue
		}
		ours++
		if top, _, _ := strings.Cut(below, "/"); !slices.Contains(parts, top) {
			t.Errorf("%s is compiled, but source.Parts does not hold %s", path, top)
		}
	}
	if ours == 0 {
		t.Error("no package of the project is compiled: this test looks for the wrong names")
	}
	docker, ignored := read(t, "../Dockerfile"), read(t, "../.dockerignore")
	for _, part := range parts {
		if !regexp.MustCompile(`(?m)^COPY (.* )?` + regexp.QuoteMeta(part) + ` `).MatchString(docker) {
			t.Errorf("the Dockerfile copies no %s", part)
		}
		if !strings.Contains(ignored, "\n!"+part+"\n") {
			t.Errorf(".dockerignore keeps %s from the builder", part)
		}
	}
}
